"""``medmae target``: the computers that run jobs."""

from __future__ import annotations

import click


@click.group("target", short_help="The computers that run jobs: add, list, check and remove them.")
def command() -> None:
    """The computers that run jobs: this one, others over SSH, and Slurm clusters.

    \b
    Examples:
      medmae target add gpu-box --kind ssh --host gpu-box.example.org
      medmae target check gpu-box
    """
