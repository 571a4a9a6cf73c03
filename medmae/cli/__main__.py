"""``python -m medmae.cli``: the command line where its script is not on the path."""

from medmae.cli import main

main()
