"""The files of one segmented case: labels, and on request probabilities and uncertainty; all of them or none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medmae.files import atomic_path
from medmae.inference.config import SegmentConfig
from medmae.inference.outputs.probability_maps import ProbabilityMaps, file_names
from medmae.inference.outputs.row_outputs import RowOutputs, Taker
from medmae.inference.outputs.uncertainty import UncertaintyMap
from medmae.models import ModelInfo
from medmae.volumes import Geometry, Segment, write_label
from medmae.volumes.dicom_seg import DICOM_SEG_ENDING, Algorithm, write_dicom_seg
from medmae.volumes.nifti_writing import write_nifti
from medmae.volumes.region import Region

HIGHDICOM_BYTES = 112 * 2**20  # of the tables that it loads when a process writes its first file, measured


class CaseOutputs:
    """What is written for one case.

    Args:
        config: says what.
        info: the model's description, for the names of labels.
        stem: path of the outputs without extension; "." and what follows is added.

    Attributes:
        sink: takes the rows of restoring; None where labels alone are wanted.
        files: what was written.
    """

    def __init__(self, config: SegmentConfig, info: ModelInfo, stem: Path) -> None:
        self.config = config
        self.info = info
        self.stem = stem
        self.files: list[Path] = []
        self._maps = ProbabilityMaps(stem.parent) if config.probabilities else None
        self._uncertainty = UncertaintyMap() if config.uncertainty else None
        takers: list[Taker | None] = [self._maps, self._uncertainty]
        wanted = [taker for taker in takers if taker is not None]
        self.sink = RowOutputs(wanted) if wanted else None

    @property
    def label_file(self) -> Path:
        """Where the labels go."""
        return self._named(DICOM_SEG_ENDING if self.config.format == "dicom-seg" else self.config.format)

    def further_bytes(self, geometry: Geometry) -> int:
        """Memory that these outputs take besides the labels."""
        voxels, is_dicom = math.prod(geometry.shape), self.config.format == "dicom-seg"
        return voxels * ((self._uncertainty is not None) + 3 * is_dicom) + HIGHDICOM_BYTES * is_dicom

    def write(self, labels: np.ndarray, geometry: Geometry, segments: Sequence[Segment], region: Region | None,
              source: Path) -> dict[str, Any]:
        """Write everything, the labels last.

        Returns:
            The paths as result.json names them: "output", and "probabilities" by label and "uncertainty" where they
            are wanted.

        Raises:
            BadInput: labels cannot be written in that format.
            OSError: the disk is full; nothing is left.
        """
        with self._all_or_nothing():
            paths = self._write_maps(geometry, region)
            if self.config.format == "dicom-seg":
                self.label_file.parent.mkdir(parents=True, exist_ok=True)
                made_by = Algorithm(self.info.name, weights_sha256=self.info.weights_sha256)
                write_dicom_seg(self.label_file, labels, source, segments, made_by)
            else:
                write_label(self.label_file, labels, geometry, segments, self.config.format)
            self.files.append(self.label_file)
        return {"output": str(self.label_file), **paths}

    def _write_maps(self, geometry: Geometry, region: Region | None) -> Mapping[str, Any]:
        paths: dict[str, Any] = {}
        if self._maps is not None:
            names = [str(label["name"]) for label in self.info.labels[1:]]
            files = [self._named(f"probability-{safe}.nii.gz") for safe in file_names(names)]
            for file, values in zip(files, self._maps.finished(region, geometry, len(names)), strict=True):
                self._write_map(file, values, geometry)
            paths["probabilities"] = dict(zip(names, map(str, files), strict=True))
        if self._uncertainty is not None:
            file = self._named("uncertainty.nii.gz")
            self._write_map(file, self._uncertainty.finished(region, geometry), geometry)
            paths["uncertainty"] = str(file)
        return paths

    def _write_map(self, file: Path, values: np.ndarray, geometry: Geometry) -> None:
        with atomic_path(file) as temporary:
            write_nifti(temporary, values, geometry)
        self.files.append(file)

    def _named(self, ending: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}.{ending}")

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for file in self.files:
                file.unlink(missing_ok=True)
            self.files.clear()
            raise
