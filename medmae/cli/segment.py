"""``medmae segment``: label maps for images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs, tables
from medmae.cli.app import say
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.cli.inference import apply_to_images, cases_of, inference_config, inputs_elsewhere, raise_failures


@options.command("segment", "Label maps for images, on their exact grids.")
@options.in_group(
    "What", options.models, options.images, options.channels, options.frame,
    click.option("--roi", type=float, nargs=6, default=None, metavar="R0 R1 A0 A1 S0 S1",
                 help="Label only what lies in this box of patient coordinates (RAS, mm)."),
    click.option("--base", type=click.Path(path_type=Path), metavar="LABELS",
                 help="Labels to keep outside of --roi: a file, or the folder of an earlier run."))
@options.in_group(
    "Results", options.out_here("The folder for the results; must be new or empty."), options.resume_cases,
    click.option("--share", metavar="I/K", help="Do only every K-th case, from number I (0 to K - 1) on: one of K "
                 "processes that write into the same OUT."),
    click.option("--format", "file_format", type=click.Choice(options.SEGMENT_FORMATS),
                 help="Of the labels. seg.nrrd: a segmentation in 3D Slicer, with names and colours; dicom-seg: refers "
                      "to the DICOM series.  [default: nii.gz]"),
    click.option("--probabilities", is_flag=True, default=None, help="Also write the probability of each label, in 8 "
                 "bits."),
    click.option("--uncertainty", is_flag=True, default=None, help="Also write where the model is unsure, in 8 bits."),
    options.postprocess,
    click.option("--largest-component", is_flag=True, default=None, help="Keep only the largest part of each label."),
    click.option("--fill-holes", is_flag=True, default=None, help="Fill what a label encloses."), options.as_json)
@options.in_group(
    "Quality, speed, memory", options.mirror, options.overlap, options.skip_empty, options.memory, options.batch,
    options.device, options.inference_precision)
@options.combine(options.overrides)
@on_target
@options.in_group("Elsewhere", options.parts)
def command(models: tuple[str, ...], images: tuple[str, ...], channels: tuple[tuple[str, ...], ...],
            out: Path | None,
            base: Path | None, resume: bool, share: str | None, file_format: str | None, overrides: tuple[str, ...],
            as_json: bool, elsewhere: Elsewhere | None, **chosen: Any) -> None:
    """Segment images; every result lies exactly on the grid of its image.

    Writes OUT/<image path without extension>.<format> and OUT/summary.csv (volume and surface of each label). An image
    that cannot be used is reported and does not keep the others from being segmented (exit code 1).
    Everything about the options and files: docs/segmenting.md.

    \b
    Examples:
      medmae segment --model runs/n8 --images scan.nii.gz --out results
      medmae segment --model liver --images study/ more/*.nrrd --format seg.nrrd --out results
      medmae segment --model fold1 fold2 --mirror --images scan.nrrd --out careful
      medmae segment --model tumour --channel t1/*.nii.gz --channel t2/*.nii.gz --out results
      medmae segment --model liver --images archive/ --out results --resume
      medmae segment --model liver --images archive/ --target cluster --parts 16 --wait --out results
    """
    config = inference_config("segment", runs.given(format=file_format, **chosen), overrides)
    model = models[0] if len(models) == 1 else list(models)
    cases = cases_of(images, channels)
    part = None if share is None else _share(share)
    if elsewhere is not None:
        if part is not None:
            raise click.UsageError("--share is for processes of your own; for a job, say --parts K.")
        inputs = inputs_elsewhere(model, cases, base=runs.absolute(base))
        elsewhere.apply("segment", config, inputs, out, resume, as_json)
        return
    assert out is not None  # the command line asks for it
    result = apply_to_images("segment", config, model, cases, out, resume=resume,
                             base=None if base is None else str(base),
                             share=part)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif result["cases"]:
        _show(result)
        click.echo(f"Results: {out}")
    raise_failures(result, out)


def _share(text: str) -> list[int]:
    """The input "share" of a run."""
    from medmae.inference.parts import Share

    share = Share.parse(text)
    return [share.index, share.count]


def _show(result: Mapping[str, Any]) -> None:
    """The labels of each image, and what the work took."""
    sure = any("confidence" in size for case in result["cases"] for size in case["labels"].values())
    tables.show(["image", "label", "voxels", "ml", "mm2", *(["confidence"] if sure else []), "seconds"],
                [[case["image"], name, size["voxels"], size["ml"], size.get("area_mm2"),
                  *([size.get("confidence")] if sure else []), case["seconds"]]
                 for case in result["cases"] for name, size in case["labels"].items()])
    from medmae.inference.memory import format_memory

    largest = max(result["cases"], key=lambda case: case["peak_bytes"])
    estimated = largest["estimated_peak_bytes"]
    said = "" if estimated is None else f" (estimated: {format_memory(estimated)})"
    say(f"Peak memory: {format_memory(largest['peak_bytes'])}{said}.")
