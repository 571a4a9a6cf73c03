"""What ``segment``, ``classify``, ``evaluate`` and ``rank`` share."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import click

from medmae.cli import runs
from medmae.cli.app import say
from medmae.files import read_json

InferenceKind = Literal["segment", "classify", "evaluate", "rank"]


def inference_config(kind: InferenceKind, given: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    """The resolved configuration of a run of `kind`.

    Raises:
        BadInput: a key is unknown or a value is of the wrong type.
    """
    from medmae.active_learning.config import RankConfig
    from medmae.config import from_json, to_json, with_overrides
    from medmae.inference.config import ClassifyConfig, EvaluateConfig, SegmentConfig

    what = f"configuration of {kind}"
    config: Any = from_json({"segment": SegmentConfig, "classify": ClassifyConfig, "evaluate": EvaluateConfig,
                             "rank": RankConfig}[kind], given, what)
    return to_json(with_overrides(config, overrides, what))


def apply_to_images(kind: InferenceKind, config: Mapping[str, Any], model: str | Sequence[str],
                    images: Sequence[str | Sequence[str]], out: Path, *, resume: bool = False,
                    **inputs: Any) -> dict[str, Any]:
    """Run `kind` over images into `out` and return its result, with the images that failed under "failed".

    Args:
        kind: segment or classify.
        config: the resolved configuration.
        model: a model, or several.
        images: as typed; a sequence within it is a case of several channels.
        out: the folder of the results.
        resume: go on with what is in `out`.
        inputs: further inputs of the run. With "share", other processes write into `out` too.

    Raises:
        BadInput: nothing was done; `out` is as it was.
        Failed: the run broke down before there was any result.
    """
    if not images:
        raise click.UsageError("Missing option '--images'.")
    from medmae.inference.parts import Share

    share = Share.of(inputs.get("share"))
    books = out if share is None else share.folder(out)
    if not resume:
        runs.refuse_filled(books)
    asked = {name: value for name, value in {"resume": resume, **inputs}.items() if value}
    inputs = {"model": model, "images": list(images), "out": str(out), **asked}
    with runs.clean_output(out if share is None else None):
        return result_of(kind, config, inputs, books)


def result_of(kind: InferenceKind, config: Mapping[str, Any], inputs: Mapping[str, Any],
              books: Path | None) -> dict[str, Any]:
    """Run `kind` and return its result, with the images that failed under "failed".

    Args:
        kind: what to run on images.
        config: the resolved configuration.
        inputs: of the run.
        books: the folder where the log is kept where some images fail; None: it is not.

    Raises:
        BadInput: nothing was done.
        Failed: the run broke down before there was any result.
    """
    with runs.temporary_run(kind, config, inputs) as run:
        try:
            runs.execute(run, kind)
        except runs.Failed:
            if not (run.path / "result.json").is_file():
                raise
            if books is not None:
                books.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run.log_file, books / "log.txt")
        state = run.state()
        if state["state"] == "stopped":
            say(f"{state.get('reason')} The same command with --resume goes on.")
        result = read_json(run.path / "result.json", "result")
    if result.get("finished_before"):
        say(f"{result['finished_before']} of the cases were finished before and are not done again.")
    return result


def models_elsewhere(model: str | Sequence[str]) -> str | list[str]:
    """A model, or several, as they stand in a run that does not begin in this folder."""
    return _reference(model) if isinstance(model, str) else [_reference(one) for one in model]


def _reference(model: str) -> str:
    return runs.model_reference(model) or model


def inputs_elsewhere(model: str | Sequence[str], images: Sequence[Any], **inputs: Any) -> dict[str, Any]:
    """The inputs of a run that does not begin in this folder; `images` as for `apply_to_images`."""
    found = [[runs.absolute(Path(one)) for one in image] if isinstance(image, list) else runs.absolute(Path(image))
             for image in images]
    return {"model": models_elsewhere(model), "images": found,
            **{name: value for name, value in inputs.items() if value}}


def cases_of(images: Sequence[str], channels: Sequence[Sequence[str]]) -> list[Any]:
    """What ``--images`` and ``--channel`` name, as the input "images" of a run.

    Raises:
        BadInput: the channels do not go together.
        UsageError: both are given.
    """
    if not channels:
        return list(images)
    if images:
        raise click.UsageError("Give either --images (one file a case) or --channel (once for each channel).")
    from medmae.inference.channels import cases_of_channels

    return [[str(path) for path in case] for case in cases_of_channels(channels)]


def raise_failures(result: Mapping[str, Any], out: Path | None) -> None:
    """End with exit code 1 where some images failed.

    Raises:
        Failed: naming each failed image and why.
    """
    failed = result["failed"]
    if failed:
        reasons = "\n".join(f"  {case['image']}: {case['reason']}" for case in failed)
        others = "; the others are done" if result["cases"] else ""
        log = "" if out is None else f"\nLog: {out / 'log.txt'}"
        total = len(failed) + result.get("scored", len(result["cases"]))
        raise runs.Failed(f"{len(failed)} of {total} images failed{others}.\n{reasons}{log}")
