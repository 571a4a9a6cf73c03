"""The ``medmae`` command: its commands, and what an error looks like."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from medmae import __version__
from medmae.errors import BadInput, Stopped
from medmae.home import home
from medmae.jobs.problems import TargetProblem

DONE, FAILED, BAD_INPUT = 0, 1, 2

COMMANDS = {  # name: module that holds it under the name "command"; listed in the order of use
    "demo": "medmae.cli.demo",
    "pretrain": "medmae.cli.pretrain",
    "finetune": "medmae.cli.finetune",
    "segment": "medmae.cli.segment",
    "classify": "medmae.cli.classify",
    "evaluate": "medmae.cli.evaluate",
    "curve": "medmae.cli.curve",
    "rank": "medmae.cli.rank",
    "model": "medmae.cli.model",
    "target": "medmae.cli.target",
    "job": "medmae.cli.job",
    "doctor": "medmae.cli.doctor",
}


class LazyCommands(click.Group):
    """A group that imports a command's module when the command is used or described."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The commands in the order in which one meets them, not in that of the alphabet."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command called `name`."""
        return import_module(COMMANDS[name]).command if name in COMMANDS else None


@click.command(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="medmae")
def medmae() -> None:
    """Masked-autoencoder encoders for images with few labels: pretrain on your own unlabelled images, finetune with a
    handful of annotated cases, segment or classify everything else.

    \b
    First steps:
      medmae doctor                 is this machine ready?
      medmae demo                   the whole chain on synthetic images, in minutes
      medmae COMMAND --help         options and examples of a command

    Exit codes: 0 done, or stopped on request; 1 failed, or some cases failed; 2 bad input.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever goes wrong is said once, on stderr."""
    logging.captureWarnings(True)  # libraries' warnings belong into the log of the run
    try:
        result = medmae.main(list(arguments), prog_name="medmae", standalone_mode=False)
        return result if isinstance(result, int) else DONE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BadInput as error:
        say(f"Error: {error}")
        return BAD_INPUT
    except TargetProblem as problem:
        say(f"Error: {problem}")
        return FAILED
    except Stopped as stop:
        say(str(stop))
        return DONE
    except (click.Abort, KeyboardInterrupt):
        say("Aborted.")
        return FAILED
    except BrokenPipeError:  # the reader of our output (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"Error: {where}{error.strerror or error}. Check free disk space and permissions; a run that had begun "
            f"goes on with --resume.\n{_keep_traceback('Details')}")
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last resort: one message for the user, the traceback for us
        fault = "This is a fault of MedMAE or of its surroundings, not of your input. Details"
        say(f"Error: {type(error).__name__}: {error}\n{_keep_traceback(fault)}")
        return FAILED


def say(message: str) -> None:
    """A message for the person, on stderr, so that stdout stays clean for results."""
    click.echo(message, err=True)


def _keep_traceback(what: str) -> str:
    """Write the traceback to a file and say where it is, after `what`; the traceback itself where that fails."""
    file = home() / "last-error.txt"
    text = traceback.format_exc()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError:
        return text
    return f"{what}: {file}"
