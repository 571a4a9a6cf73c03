"""What the demonstration does: data, then runs, each also as the command line that does the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.demo.synthetic import write_abdomen_ct, write_chest_xray
from medmae.run_folder import Kind

CT_DATA = "data/abdomen_ct/dataset.json"
LUNG_DATA = "data/chest_xray/dataset_segmentation.json"
FINDING_DATA = "data/chest_xray/dataset_classification.json"
NEW_CT = ["data/abdomen_ct/images/ct_009.nii.gz", "data/abdomen_ct/images/ct_010.nii.gz"]
"""Unlabelled volumes to segment."""
ORGANS = ("liver", "kidney", "vertebra")
SEED = 0
DATA_OF = {CT_DATA: "ct-data", LUNG_DATA: "xray-data", FINDING_DATA: "xray-data"}


@dataclass(frozen=True)
class DataStep:
    """Making one set of synthetic data.

    Attributes:
        name: of the step.
        title: what it does, for messages.
        folder: below the demonstration's folder.
        file: of the data set, written last: where it exists the data is whole.
        write: makes the data in a folder.
    """

    name: str
    title: str
    folder: str
    file: str
    write: Callable[[Path], object]


@dataclass(frozen=True)
class Step:
    """One run of the demonstration. Paths in `inputs` are relative to the demonstration's folder.

    Attributes:
        name: of the run folder, below ``runs/``.
        title: what it does, for messages.
        kind: of the run.
        config: what differs from the defaults.
        inputs: as in the run's specification.
    """

    name: str
    title: str
    kind: Kind
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The run folder, relative to the demonstration's."""
        return f"runs/{self.name}"

    @property
    def needs(self) -> set[str]:
        """Names of the steps whose results this one takes."""
        read = [self.inputs.get(name, "") for name in ("encoder", "model")]
        return {path.removeprefix("runs/") for path in read if path.startswith("runs/")} | {
            DATA_OF[self.inputs.get("dataset", CT_DATA)]}

    @property
    def command(self) -> str:
        """The command line that does the same, to be typed in the demonstration's folder."""
        words = ["medmae", self.kind]
        for name, value in self.inputs.items():
            words += [f"--{name}", *(value if isinstance(value, list) else [value])]
        named = [name for name in self.config if name in OPTIONS]
        for name in named:
            words += [f"--{name}", str(self.config[name])]
        if "out" not in self.inputs:
            words += ["--out", self.folder]
        others = [f"{name}={value}" for name, value in self.config.items() if name not in OPTIONS]
        words += ["--set", *others] if others else []
        return shlex.join(map(str, words))

    def spec(self, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """The whole configuration and the inputs, as the command line writes them.

        Paths are absolute but those of images, after which their results are called.

        Raises:
            BadInput: a configuration key is unknown.
        """
        inputs = {name: _absolute(root, name, value) for name, value in self.inputs.items()}
        return _resolved(self.kind, self.config), inputs


OPTIONS = ("method", "preset", "steps", "format")


def _absolute(root: Path, name: str, value: Any) -> Any:
    is_path = name in ("dataset", "model", "out") or (name == "encoder" and value != "none")
    return str(root / value) if is_path else value


def _resolved(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "pretrain":
        from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config

        return to_json(resolve_pretrain_config(from_json(PretrainConfig, config, "pretraining configuration")))
    if kind == "finetune":
        from medmae.finetuning.config import FinetuneConfig

        return to_json(from_json(FinetuneConfig, config, "finetuning configuration"))
    from medmae.inference.config import EvaluateConfig, SegmentConfig

    classes: Mapping[str, Any] = {"segment": SegmentConfig, "evaluate": EvaluateConfig}
    return to_json(from_json(classes[kind], config, f"configuration of {kind}"))


def _arms(prefix: str, what: str, method: str, dataset: str, subset: str, encoder: str, config: Mapping[str, Any],
          evaluation: Mapping[str, Any]) -> list[Step]:
    """Finetuning and evaluation from scratch and from `encoder`, with one schedule."""
    steps = []
    for arm, start, own in (("scratch", "none", {"method": method, "preset": "tiny"}), ("pretrained", encoder, {})):
        name = f"{prefix}-{arm}"
        told = "from scratch" if arm == "scratch" else "from the pretrained encoder"
        steps.append(Step(name, f"finetuning for {what} {told}", "finetune", {**own, **config},
                          {"dataset": dataset, "encoder": start, "subset": subset}))
        steps.append(Step(f"{name}-test", f"scoring {what} {told}", "evaluate", evaluation,
                          {"model": f"runs/{name}", "dataset": dataset, "out": f"predictions/{name}"}))
    return steps


def ct_chain() -> list[Step]:
    """GL-MAE on CT volumes: pretrain, finetune with four cases, score held-out cases, segment new ones.

    Short schedules take high learning rates; an encoder that was pretrained for a minute needs no layer-wise decay.
    """
    segment = Step("ct-segment", "segmenting new CT volumes", "segment", {"format": "seg.nrrd", "overlap": 0.25},
                   {"model": "runs/ct-pretrained", "images": NEW_CT, "out": "predictions/ct-new"})
    return [
        Step("ct-encoder", "pretraining GL-MAE on CT volumes without labels", "pretrain",
             {"method": "gl-mae", "preset": "tiny", "steps": 80},
             {"dataset": CT_DATA}),
        *_arms("ct", "organs", "gl-mae", CT_DATA, "n4", "runs/ct-encoder",
               {"steps": 100, "learning_rate": 4e-3, "layer_decay": 1.0, "validations": 1}, {"overlap": 0.25}),
        segment,
    ]


def xray_chain() -> list[Step]:
    """VIS-MAE on X-rays: pretrain, finetune for lungs and heart with four pictures and for the finding with sixteen."""
    return [
        Step("xray-encoder", "pretraining VIS-MAE on X-rays without labels", "pretrain",
             {"method": "vis-mae", "preset": "tiny", "steps": 500, "batch_size": 4, "learning_rate": 2e-3},
             {"dataset": LUNG_DATA}),
        *_arms("xray", "lungs and heart", "vis-mae", LUNG_DATA, "n4", "runs/xray-encoder",
               {"steps": 240, "batch_size": 4, "learning_rate": 3e-3, "layer_decay": 1.0, "validations": 1}, {}),
        *_arms("finding", "the finding", "vis-mae", FINDING_DATA, "n16", "runs/xray-encoder",
               {"steps": 100, "batch_size": 8, "layer_decay": 1.0, "validations": 1}, {}),
    ]


CHAINS = {"CT": ct_chain, "X-ray": xray_chain}


def _ct_data(folder: Path) -> Path:
    return write_abdomen_ct(folder, SEED, training=4, validation=1, test=4, unlabeled=16, organs=ORGANS)


def _xray_data(folder: Path) -> object:
    return write_chest_xray(folder, SEED, training=16, validation=2, test=24, unlabeled=40)


def data_steps() -> list[DataStep]:
    """The data of both chains."""
    return [DataStep("ct-data", "drawing 25 CT volumes, 4 of them labelled for training", "data/abdomen_ct", CT_DATA,
                     _ct_data),
            DataStep("xray-data", "drawing 82 X-rays, 16 of them labelled for training", "data/chest_xray",
                     FINDING_DATA, _xray_data)]


def all_steps() -> list[DataStep | Step]:
    """Everything in the order in which it is taken up: of what is ready, the first; long steps stand early."""
    runs = [step for chain in CHAINS.values() for step in chain()]
    return [*data_steps(), *sorted(runs, key=lambda step: (step.kind != "pretrain", step.kind != "finetune"))]
