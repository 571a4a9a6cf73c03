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
PRECISIONS = ("fp32", "bf16", "fp16")


class Command(click.Command):
    """A command whose repeatable options take several values at once, as shells expand globs: ``--images a b c``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Spread ``--images a b c`` to ``--images a --images b --images c`` before parsing."""
        many = {name for option in self.params if isinstance(option, click.Option) and option.multiple
                for name in option.opts}
        return super().parse_args(context, _spread(args, many))


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
resume = click.option("--resume", is_flag=True, help="Continue the run in --out where it was stopped or killed.")
overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE...",
                         help="Override any key of the configuration, e.g. --set batch_size=4 (a wrong key lists all).")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")


def out(what: str, *, required: bool = True) -> Callable[[Function], Function]:
    """The ``--out`` option; `what` says what is written there."""
    return click.option("--out", type=click.Path(path_type=Path), required=required, metavar="DIR", help=what)
