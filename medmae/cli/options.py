"""The options that several commands share: one name, one meaning, one help text everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from medmae.networks.presets import preset_names
from medmae.pretraining.registry import method_names

Function = TypeVar("Function", bound=Callable[..., Any])

PRESETS = preset_names()
FORMATS = ("nii.gz", "nrrd", "seg.nrrd")
SEGMENT_FORMATS = (*FORMATS, "dicom-seg")
PRECISIONS = ("fp32", "bf16", "fp16")
TOGETHER = "\0"  # between the values of one use of an option; no argument of a program can hold it


class TogetherOption(click.Option):
    """A repeatable option of which each use takes several values that belong together."""

    def type_cast_value(self, context: click.Context, value: Any) -> Any:
        """A tuple of the values of each use."""
        return tuple(tuple(use.split(TOGETHER)) for use in super().type_cast_value(context, value) or ())


class Command(click.Command):
    """A command whose repeatable options take several values at once, as shells expand globs: ``--images a b c``.

    Options that were declared `in_group` are listed under its heading in the help.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Spread ``--images a b c`` to ``--images a --images b --images c`` before parsing."""
        given = [option for option in self.params if isinstance(option, click.Option) and option.multiple]
        many = {name for option in given if not isinstance(option, TogetherOption) for name in option.opts}
        together = {name for option in given if isinstance(option, TogetherOption) for name in option.opts}
        return super().parse_args(context, _joined(_spread(args, many), together))

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Options by group, in the order in which groups first come; those without one last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(context):
            record = option.get_help_record(context)
            if record is not None:
                groups.setdefault(getattr(option, "group", "Options"), []).append(record)
        for group in sorted(groups, key="Options".__eq__):
            with formatter.section(group):
                formatter.write_dl(groups[group])


def in_group(group: str, *options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """`combine`, under a heading in the help."""
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
            function.__click_params__[-1].group = group  # type: ignore[attr-defined]
        return function
    return decorate


def _spread(args: Sequence[str], many: set[str]) -> list[str]:
    spread: list[str] = []
    current: str | None = None
    first = False
    for token in args:
        if token.startswith("-") and len(token) > 1:
            name = token.partition("=")[0]
            current, first = (name, "=" not in token) if name in many else (None, False)
        elif current is not None:
            if not first:
                spread.append(current)
            first = False
        spread.append(token)
    return spread


def _joined(args: Sequence[str], together: set[str]) -> list[str]:
    """The values after each use of an option of `together` as one."""
    joined: list[str] = []
    begun = values = False
    for token in args:
        if token.startswith("-") and len(token) > 1:
            name, equals, _ = token.partition("=")
            begun, values = name in together, bool(equals)
            joined.append(token)
        elif begun and values:
            joined[-1] += TOGETHER + token
        else:
            joined.append(token)
            values = True
    return joined


def command(name: str, summary: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command of the ``medmae`` command line; `summary` is its line in the list of commands."""
    return click.command(name, cls=Command, short_help=summary)


def combine(*options: Callable[[Any], Any]) -> Callable[[Function], Function]:
    """Apply several options in the order in which the help shall list them."""
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function
    return decorate


dataset = click.option("--dataset", type=click.Path(path_type=Path), metavar="FILE",
                       help="dataset.json: the case list (Decathlon / MONAI datalist form).")
images = click.option("--images", multiple=True, metavar="PATH...",
                      help="Files, folders, globs or DICOM folders; several may follow.")
encoder = click.option("--encoder", metavar="MODEL|none",
                       help="Pretrained encoder: a model folder, a run folder or a name in the registry; "
                            "'none' starts from scratch (with --method and --preset).")
model = click.option("--model", required=True, metavar="MODEL",
                     help="A model folder, a run folder or a name in the registry (medmae model list).")
models = click.option("--model", "models", required=True, multiple=True, metavar="MODEL...",
                      help="A model folder, a run folder or a name in the registry; several answer together as an "
                           "ensemble.")
channels = click.option("--channel", "channels", cls=TogetherOption, multiple=True, metavar="PATH...",
                        help="For models of several channels, once for each channel in the model's order, instead of "
                             "--images: its images, case after case.")
method = click.option("--method", type=click.Choice(method_names()), help="vis-mae: 2-D; gl-mae: 3-D.")
preset = click.option("--preset", type=click.Choice(PRESETS),
                      help="Size of the network. base: as published; tiny: useful on two CPU cores in minutes. "
                           "What follows the size, gl-mae only: -fast: a small decoder, quicker to pretrain; -patch8: "
                           "finer tokens for small structures; -thin: volumes of few, thick slices; -hybrid: "
                           "convolutions and attention, for small volumes and few labels.")
cases = click.option("--cases", type=click.IntRange(min=1), metavar="N",
                     help="Use N training cases, drawn by subject from the seed.")
subset = click.option("--subset", metavar="NAME", help="Use a named few-label subset of the dataset file.")
steps = click.option("--steps", type=click.IntRange(min=1), metavar="N",
                     help="Optimiser steps. Default: what the preset says.")
seed = click.option("--seed", type=int, metavar="N", help="Seed of everything random.  [default: 0]")
split = click.option("--split", metavar="KEY", default="test", show_default=True,
                     help="The list of the dataset file to use.")
device = click.option("--device", metavar="auto|cpu|cuda:N", help="Where to compute.  [default: auto]")
precision = click.option("--precision", type=click.Choice(("auto", *PRECISIONS)),
                         help="Arithmetic of the network; auto: bf16 where the device computes it.  "
                              "[default: fp32; auto for pretraining with vis-mae]")
inference_precision = click.option("--precision", type=click.Choice(("auto", *PRECISIONS)),
                                   help="Arithmetic of the network.  "
                                        "[default: auto: bf16 where the device computes it]")
frame = click.option("--frame", type=click.IntRange(min=0), metavar="N", help="The frame of 4-D images, from 0.")
resume_cases = click.option("--resume", is_flag=True, help="Repeat a command that was stopped or killed: finished "
                            "cases are skipped, failed ones tried again.")
overlap = click.option("--overlap", type=click.FloatRange(0, 1, max_open=True), metavar="PART",
                       help="How much neighbouring windows share; more is slower and smoother.  [default: 0.5]")
mirror = click.option("--mirror", is_flag=True, default=None, help="Average over mirrored images too, along the axes "
                      "that the model's training mirrored: twice the work for each.")
skip_empty = click.option("--skip-empty/--no-skip-empty", default=None, help="Leave out windows with nothing but air "
                          "or padding.  [default: skip]")
memory = click.option("--memory", metavar="SIZE", help="The most memory to take, for example 4GB; slower where it is "
                      "little.  [default: what is free]")
batch = click.option("--batch", type=click.IntRange(min=1), metavar="N",
                     help="Windows a forward pass.  [default: what suits the device]")
postprocess = click.option("--postprocess", type=click.Choice(("model", "none")),
                           help="Clean labels as the model asks for, or not.  [default: model]")
resume = click.option("--resume", is_flag=True, help="Continue the run in --out where it was stopped or killed.")
overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE...",
                         help="Override any key of the configuration, e.g. --set batch_size=4 (a wrong key lists all).")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")


def _needed_here(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """For an option that is required unless the command runs on a target."""
    if value is None and context.params.get("target") is None:
        raise click.MissingParameter(ctx=context, param=option)
    return value


def out(what: str, *, required: bool = True) -> Callable[[Function], Function]:
    """The ``--out`` option; `what` says what is written there."""
    return click.option("--out", type=click.Path(path_type=Path), required=required, metavar="DIR", help=what)


def out_here(what: str) -> Callable[[Function], Function]:
    """The ``--out`` option of a command that can run on a target; `what` says what is written there."""
    return click.option("--out", callback=_needed_here, type=click.Path(path_type=Path), metavar="DIR",
                        help=f"{what} With --target: where fetched results go.")


on_target = in_group(
    "Elsewhere",
    click.option("--target", metavar="NAME", is_eager=True,
                 help="Run as a job on this target and return at once (medmae target list; local: this computer, "
                      "detached)."),
    click.option("--wait", is_flag=True, help="With --target: follow the job to its end and fetch the results."),
    click.option("--name", "job_name", metavar="NAME",
                 help="With --target: of the job, and of its model when it is installed.  [default: its id]"))
parts = click.option("--parts", type=click.IntRange(min=1), metavar="K",
                     help="With --target: divide the images among K processes, or tasks of a Slurm array.")
