"""The command line: thin commands that write a run's specification, run it here and show how it goes.

Importing this package must stay quick: torch, MONAI and rich are imported by the command that needs them.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the ``medmae`` command."""
    from medmae.cli.app import run

    sys.exit(run(sys.argv[1:]))
