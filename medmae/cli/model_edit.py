"""``medmae model edit``: what a segmentation model asks to be done with its labels."""

from __future__ import annotations

import json

import click

from medmae.cli import options, runs


@click.command("edit", cls=options.Command, short_help="Choose how a model's labels are cleaned.")
@click.argument("model")
@click.option("--largest-component", multiple=True, metavar="LABEL...|all|none",
              help="Keep only the largest part of these labels.")
@click.option("--fill-holes", multiple=True, metavar="LABEL...|all|none", help="Fill what these labels enclose.")
@options.as_json
def edit_command(model: str, largest_component: tuple[str, ...], fill_holes: tuple[str, ...], as_json: bool) -> None:
    """Choose what is done with the labels of a segmentation model whenever it is used.

    What is not named stays as it is. The weights are not touched. medmae segment --postprocess none leaves it out once.

    \b
    Examples:
      medmae model edit liver --largest-component liver --fill-holes liver
      medmae model edit runs/n8 --fill-holes none
    """
    from medmae.models import resolve_model
    from medmae.models.editing import set_postprocessing

    steps = runs.given(largest_component=largest_component, fill_holes=fill_holes)
    if not steps:
        raise click.UsageError("Say what to change: --largest-component or --fill-holes.")
    info = set_postprocessing(resolve_model(model), steps)
    if as_json:
        click.echo(json.dumps({"name": info.name, "postprocessing": info.postprocessing}))
        return
    told = [f"{step.replace('_', ' ')}: {', '.join(names)}" for step, names in info.postprocessing.items()]
    click.echo(f"{info.name}: {'; '.join(told) or 'labels stay as they are'}")
