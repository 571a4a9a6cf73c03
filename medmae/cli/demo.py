"""``medmae demo``: the whole chain on synthetic images."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from medmae.cli import options
from medmae.cli.app import say
from medmae.cli.progress import duration
from medmae.cli.runs import Failed, clean_output
from medmae.errors import Stopped


@options.command("demo", "The whole chain on synthetic images, in minutes.")
@options.combine(
    click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, metavar="DIR",
                 help="A new folder, or that of an earlier demonstration, which is continued."),
    options.as_json)
def command(out: Path, as_json: bool) -> None:
    """Pretrain, finetune, score and segment with both methods on synthetic images, and write OUT/report.html.

    Takes about five minutes on two cores and needs nothing but this installation. The page shows every command line
    that does the same on images of your own.

    \b
    Example:
      medmae demo --out demo
    """
    from medmae.demo.run import DemoFailed, run_demo

    begun = time.monotonic()
    try:
        with clean_output(out):
            page = run_demo(out, lambda message: say(f"[{duration(time.monotonic() - begun):>6}] {message}"))
    except DemoFailed as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        raise Stopped(f"Stopped as asked. The same command continues: medmae demo --out {out}") from None
    click.echo(json.dumps({"report": str(page)}) if as_json else f"Done: open {page} in a browser.")
