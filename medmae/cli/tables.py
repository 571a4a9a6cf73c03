"""Results for people, on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

UNKNOWN = "–"


def show(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table; numbers are set to the right. Nothing is cut off where stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table

    cells = [[text(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        numeric = bool(cells) and all(_is_number(row[index]) for row in cells)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, 400)
    console.print(table)


def text(value: object) -> str:
    """A cell: three decimals for measures, a dash for what is not known."""
    if value is None:
        return UNKNOWN
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _is_number(cell: str) -> bool:
    return cell == UNKNOWN or cell.replace(".", "", 1).replace("-", "", 1).isdigit()
