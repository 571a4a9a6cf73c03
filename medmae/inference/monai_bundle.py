"""The components that the MONAI bundles of ``medmae model export`` name: reading, inference and writing of MedMAE.

They are put together by ``configs/inference.json`` of a bundle and run by ``monai.bundle``. What they compute is what
``medmae segment`` and ``medmae classify`` compute, because it is the same code. MONAI itself is not imported here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from medmae.errors import BadInput
from medmae.files import write_text
from medmae.inference.cases import FoundCase, find_cases
from medmae.inference.classifier import Classification, Classifier
from medmae.inference.config import LabelFormat, Precision
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.segment_run import segments_of
from medmae.inference.segmenter import Segmenter, stored_values
from medmae.inference.summary import table_text
from medmae.models import load_info, load_network
from medmae.volumes import Volume, read_image, write_label

log = logging.getLogger(__name__)
CASE, IMAGES, PREDICTION = "case", "images", "pred"
CLASSES_FILE = "probabilities.csv"


def network_of(architecture: Mapping[str, Any], weights: str | Path) -> nn.Module:
    """The network of a bundle in eval mode, with its weights.

    Args:
        architecture: as the bundle's config shows it.
        weights: the model folder, which must hold just this network.

    Raises:
        BadInput: the model is damaged, or is another network.
    """
    info = load_info(weights)
    if dict(architecture) != info.architecture:
        raise BadInput(f"The config of the bundle describes another network than the model in {weights}. "
                       "Export the model again.")
    return load_network(weights)


def find_data(dataset_dir: str | Path,
              images: str | Sequence[str | Sequence[str]] | None = None) -> list[dict[str, Any]]:
    """The cases of a folder, or of the image or images named (a list within the list is one case, an image a channel).

    Raises:
        BadInput: there is none.
    """
    if isinstance(images, str):
        images = [images]
    return [{CASE: case} for case in find_cases([str(dataset_dir)] if images is None else images)]


class ReadCase:
    """MONAI transform: {"case"} to {"case", "images"}, the volumes of the case with their places in the patient.

    Args:
        frame: of 4-D images, from 0.
    """

    def __init__(self, frame: int | None = None) -> None:
        self.frame = frame

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Read the images of a case (``BadInput`` where one cannot be read)."""
        return {**data, IMAGES: [read_image(path, frame=self.frame) for path in data[CASE].images]}


class CaseInferer:
    """MONAI-like inferer: the images of a case and the network to labels on the image's own grid, or to a class.

    Args:
        model: the model folder; says how images are prepared and what the classes are.
        precision: auto, fp32, bf16 or fp16.
        overlap: part of the window that neighbouring windows share.
        batch: windows a forward pass; None: what suits the device.
    """

    def __init__(self, model: str | Path, precision: Precision = "auto", overlap: float = 0.5,
                 batch: int | None = None) -> None:
        self.info = load_info(model)
        self.precision, self.overlap, self.batch = precision, overlap, batch
        self._engine: tuple[nn.Module, Segmenter | Classifier] | None = None

    def __call__(self, inputs: Sequence[Volume], network: nn.Module) -> np.ndarray | Classification:
        """Labels (k, j, i) with the stored values of the training data, or a `Classification`."""
        engine = self._of(network)
        return engine.segment(inputs) if isinstance(engine, Segmenter) else engine.classify(inputs)

    def _of(self, network: nn.Module) -> Segmenter | Classifier:
        if self._engine is None or self._engine[0] is not network:
            device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
            model = LoadedModel.of(self.info, network, device=device, precision=self.precision)
            self._engine = network, (Segmenter(model, overlap=self.overlap, batch=self.batch)
                                     if self.info.task == "segmentation" else Classifier(model, batch=self.batch))
        return self._engine[1]


class Writer(Protocol):
    """What takes the results of an `Evaluator`."""

    def __call__(self, data: Mapping[str, Any]) -> Any:
        """Take {"case", "images", "pred"}."""
        ...

    def close(self) -> None:
        """All cases are done."""
        ...


class WriteLabels:
    """Writes ``OUTPUT_DIR/<path without extension>.<format>``, as ``medmae segment`` does.

    Args:
        model: the model folder; names the labels.
        output_dir: where the files go.
        format: nii.gz, nrrd or seg.nrrd.
    """

    def __init__(self, model: str | Path, output_dir: str | Path, format: LabelFormat = "nii.gz") -> None:
        self.info, self.output_dir, self.format = load_info(model), Path(output_dir), format
        self.values = stored_values([int(label["value"]) for label in self.info.labels])

    def __call__(self, data: Mapping[str, Any]) -> Path:
        """Write the labels of a case; returns the path."""
        case: FoundCase = data[CASE]
        path = self.output_dir / f"{case.output_name}.{self.format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_label(path, data[PREDICTION], data[IMAGES][0].geometry, segments_of(self.info, self.values), self.format)
        log.info("%s: labels in %s", case.images[0], path)
        return path

    def close(self) -> None:
        """Nothing is left to do."""


class WriteClasses:
    """Writes ``OUTPUT_DIR/probabilities.csv``: a row a case, the label and the probability of each class.

    Args:
        model: the model folder; names the classes.
        output_dir: where the file goes.
    """

    def __init__(self, model: str | Path, output_dir: str | Path) -> None:
        self.names = [str(label["name"]) for label in load_info(model).labels]
        self.output_dir = Path(output_dir)
        self.rows: list[dict[str, Any]] = []

    def __call__(self, data: Mapping[str, Any]) -> None:
        """Note the class of a case."""
        case, found = data[CASE], data[PREDICTION]
        self.rows.append({"image": str(case.images[0]), "label": found.label, **found.probabilities})
        log.info("%s: %s", case.images[0], found.label)

    def close(self) -> None:
        """Write the table."""
        write_text(self.output_dir / CLASSES_FILE, table_text(("image", "label", *self.names), self.rows))


class Evaluator:
    """Runs a network over the cases of a dataset; one that fails is logged and does not stop the others.

    Args:
        dataset: {"case", "images"} of each case.
        network: in eval mode, on its device.
        inferer: images and network to the prediction.
        postprocessing: takes {"case", "images", "pred"}.
    """

    def __init__(self, dataset: Sequence[Mapping[str, Any]], network: nn.Module, inferer: CaseInferer,
                 postprocessing: Writer) -> None:
        self.dataset, self.network, self.inferer, self.postprocessing = dataset, network, inferer, postprocessing

    def run(self) -> None:
        """Predict every case.

        Raises:
            BadInput: a case cannot be used; the others are done.
        """
        failed: list[str] = []
        for index in range(len(self.dataset)):
            try:
                data = self.dataset[index]  # reads the images
                self.postprocessing({**data, PREDICTION: self.inferer(data[IMAGES], self.network)})
            except (BadInput, RuntimeError) as error:
                reason = _bad_input(error)
                if reason is None:
                    raise
                log.error("%s", reason)
                failed.append(str(reason))
        self.postprocessing.close()
        if failed:
            raise BadInput(f"{len(failed)} case{'s' if len(failed) > 1 else ''} could not be used; the first: "
                           f"{failed[0]}")


def _bad_input(error: BaseException | None) -> BadInput | None:
    """The bad input behind an error: MONAI wraps what a transform raises."""
    while error is not None and not isinstance(error, BadInput):
        error = error.__cause__
    return error
