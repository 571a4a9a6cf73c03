"""The descriptive files of a MONAI bundle: configs/metadata.json, configs/inference.json, logging.conf, docs, LICENSE.

A bundle holds the model folder as it is (``models/``) and names components of `medmae.inference.monai_bundle`, so that
what MONAI runs is what ``medmae segment`` and ``medmae classify`` run. Needs no torch.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

from medmae import __version__
from medmae.models.info import ModelInfo

COMPONENTS = "medmae.inference.monai_bundle"
CALLS = ("$", "@", "%", "_")  # MONAI reads a text or key that begins so as an expression, reference, file, setting
SCHEMA = ("https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
          "meta_schema_20240725.json")
VERSION = "1.0.0"
REQUIRED = ("SimpleITK", "safetensors", "scipy")
LOGGING = """[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=plain

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
level=INFO
formatter=plain
args=(sys.stderr,)

[formatter_plain]
format=%(asctime)s %(levelname)s %(name)s: %(message)s
"""


def metadata(info: ModelInfo) -> dict[str, Any]:
    """The content of configs/metadata.json."""
    arguments = info.architecture["arguments"]
    channels = {str(number): str(channel.get("name", number)) for number, channel in enumerate(info.channels)}
    classes = {str(number): str(label["name"]) for number, label in enumerate(info.labels)}
    is_segmentation = info.task == "segmentation"
    return _inert({
        "schema": SCHEMA, "version": VERSION, "changelog": {VERSION: f"exported by MedMAE {__version__}"},
        "monai_version": _version("monai"), "pytorch_version": _version("torch").partition("+")[0],
        "numpy_version": _version("numpy"),
        "required_packages_version": {"medmae": __version__} | {name: _version(name) for name in REQUIRED},
        "name": info.name, "task": f"{info.task} of {_seen(info)}",
        "description": f"A {info.spatial_dims}-D {info.task} model of MedMAE ({info.method}, preset {info.preset}, "
                       f"network {info.architecture['name']}) that tells apart: {', '.join(classes.values())}.",
        "authors": "not stated", "copyright": info.licence or "not stated",
        "data_source": str(info.training.get("source", info.training.get("dataset", "not stated"))),
        "data_type": "nibabel and whatever else MedMAE reads: NIfTI, NRRD, MHA, DICOM, PNG, JPEG, TIFF",
        "image_classes": ", ".join(channels.values()), "label_classes": ", ".join(classes.values()),
        "pred_classes": ", ".join(f"{label['value']} is {label['name']}" for label in info.labels),
        "eval_metrics": info.scores, "references": [info.citation] if info.citation else [],
        "intended_use": "For research. Not a medical device; check every result.",
        "network_data_format": {
            "inputs": {"image": {
                "type": "image", "format": "magnitude", "modality": info.modality or "unknown",
                "num_channels": arguments["channels"], "spatial_shape": list(info.input_size), "dtype": "float32",
                "value_range": [], "is_patch_data": is_segmentation, "channel_def": channels}},
            "outputs": {"pred": {
                "type": "image" if is_segmentation else "probabilities",
                "format": "segmentation" if is_segmentation else "classes", "num_channels": len(classes),
                "spatial_shape": list(info.input_size) if is_segmentation else [], "dtype": "float32",
                "value_range": [], "is_patch_data": is_segmentation, "channel_def": classes}}},
    })


def _inert(value: Any) -> Any:
    """The same content with a space before each text that MONAI would follow: a label may well be "% stenosis"."""
    if isinstance(value, dict):
        return {_inert(key): _inert(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_inert(item) for item in value]
    return f" {value}" if isinstance(value, str) and value.startswith(CALLS) else value


def inference_config(info: ModelInfo) -> dict[str, Any]:
    """The content of configs/inference.json; `bundle_root`, `dataset_dir`, `output_dir` and the like can be overridden.

    The names are those that MONAI expects of an inference bundle.
    """
    settings = {"overlap": 0.5} if info.task == "segmentation" else {}
    written = {"format": "@output_format"} if info.task == "segmentation" else {}
    return {
        "bundle_root": ".", "dataset_dir": "$@bundle_root + '/data'", "images": None, "frame": None,
        "output_dir": "$@bundle_root + '/eval'",
        **({"output_format": "nii.gz"} if info.task == "segmentation" else {}),
        "precision": "auto", "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{COMPONENTS}.network_of", "architecture": info.architecture,
                        "weights": "$@bundle_root + '/models'"},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": f"{COMPONENTS}.ReadCase", "frame": "@frame"},
        "dataset": {"_target_": "monai.data.Dataset", "transform": "@preprocessing",
                    "data": {"_target_": f"{COMPONENTS}.find_data", "dataset_dir": "@dataset_dir",
                             "images": "@images"}},
        "inferer": {"_target_": f"{COMPONENTS}.CaseInferer", "model": "$@bundle_root + '/models'",
                    "precision": "@precision", **settings},
        "postprocessing": {"_target_": f"{COMPONENTS}.{'WriteLabels' if settings else 'WriteClasses'}",
                           "model": "$@bundle_root + '/models'", "output_dir": "@output_dir", **written},
        "evaluator": {"_target_": f"{COMPONENTS}.Evaluator", "dataset": "@dataset", "network": "@network",
                      "inferer": "@inferer", "postprocessing": "@postprocessing"},
        "run": ["$@evaluator.run()"],
    }


def readme(info: ModelInfo, card: str) -> str:
    """The content of docs/README.md: how to run the bundle, then the card of the model."""
    result = "label maps on the grids of the images" if info.task == "segmentation" else "probabilities.csv"
    channels = ("" if info.image_channels == 1 else
                f" A case of {info.image_channels} images is a list within the list, one image a channel.")
    return f"""# {info.name} as a MONAI bundle

```sh
pip install medmae=={__version__} fire
cd BUNDLE
python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir RESULTS
```

`IMAGES` is a folder with images; `RESULTS` receives {result}. `--images "['a.nii.gz', 'b.nii.gz']"` names files
instead.{channels} From another folder, add `--bundle_root BUNDLE`. The results are those of `medmae {
        'segment' if info.task == 'segmentation' else 'classify'} --model BUNDLE/models`, to the last voxel.

Weights are a safetensors file; no pickle is loaded. Running any bundle runs what its configs name: read
`configs/inference.json` before you run one from a stranger.

{card}"""


def licence_text(info: ModelInfo) -> str:
    """The content of LICENSE."""
    return (f"Weights of the model {info.name}:\n\n{info.licence or 'The licence of these weights is not stated.'}\n\n"
            "The code that runs them, MedMAE, is licensed under the Apache License, Version 2.0.\n")


def _seen(info: ModelInfo) -> str:
    return f"{info.modality or 'medical'} {'volumes' if info.spatial_dims == 3 else 'images'}"


def _version(package: str) -> str:
    return importlib.metadata.version(package)
