"""The look of all figures, and their way to PNG. No window system and no pyplot state is involved."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medmae.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Color = tuple[float, float, float]
INK, SOFT, LINE = "#1c2733", "#5b6876", "#dde3e9"
BLUE, ORANGE, GREEN, RED, PURPLE, TEAL = "#1f6fb2", "#d9822b", "#3a8f5b", "#c0443f", "#7a5ba8", "#2a9d9d"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, TEAL)
DPI = 144
CSS_PIXELS_PER_INCH = 96
LEAST_DIFFERENCE = 0.3

_SETTINGS: Any = {
    "font.family": ["DejaVu Sans"], "font.size": 10, "text.parse_math": False, "text.usetex": False,
    "axes.edgecolor": SOFT, "axes.labelcolor": SOFT, "axes.titlecolor": INK, "axes.titlesize": 10.5,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.8, "axes.axisbelow": True, "xtick.color": SOFT,
    "ytick.color": SOFT, "lines.linewidth": 1.8, "legend.frameon": False, "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


class Sheet:
    """A figure being drawn: ``with Sheet(width, height) as sheet`` applies the look; sizes are in inches."""

    def __init__(self, width: float, height: float) -> None:
        try:
            import matplotlib
        except ImportError:
            raise BadInput("Reports need matplotlib, which is not installed. "
                           "Install it with: pip install 'medmae[report]'") from None
        self._context = matplotlib.rc_context(_SETTINGS)
        self._size = (width, height)

    def __enter__(self) -> Figure:
        self._context.__enter__()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=self._size, layout="constrained")
        FigureCanvasAgg(self.figure)
        return self.figure

    def __exit__(self, *problem: object) -> None:
        if problem[0] is None:
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
            self.png = buffer.getvalue()
        self._context.__exit__(*problem)  # type: ignore[arg-type]

    @property
    def css_width(self) -> int:
        """The width at which the picture is meant to be shown, in CSS pixels."""
        return round(self._size[0] * CSS_PIXELS_PER_INCH)


def grid_of_axes(figure: Figure, rows: int, columns: int, **keywords: Any) -> list[list[Axes]]:
    """Axes in rows and columns, always as nested lists."""
    return [list(row) for row in figure.subplots(rows, columns, squeeze=False, **keywords)]


def bare(axes: Axes) -> None:
    """Axes for a picture: no ticks, no frame, no grid."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shortened(name: str, length: int = 34) -> str:
    """A long name with its middle left out."""
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-(length // 2 - 1):]}"


def smoothed(values: Sequence[float], span: int) -> list[float]:
    """Mean over a window of about `span` values around each one, narrower towards both ends: it does not lag."""
    half = max(span // 2, 1)
    totals = [0.0]
    for value in values:
        totals.append(totals[-1] + value)
    result = []
    for index in range(len(values)):
        reach = min(half, index, len(values) - 1 - index)
        result.append((totals[index + reach + 1] - totals[index - reach]) / (2 * reach + 1))
    return result


def distinct(colors: Sequence[Color]) -> list[Color]:
    """The same colours, but those too much like an earlier one replaced (Slicer's organs are mostly shades of red)."""
    from matplotlib.colors import to_rgb

    chosen: list[Color] = []
    for color in colors:
        spare = [to_rgb(one) for one in CYCLE]
        is_new = _nearest(color, chosen) >= LEAST_DIFFERENCE
        chosen.append(color if is_new else max(spare, key=lambda one: _nearest(one, chosen)))
    return chosen


def _nearest(color: Color, others: Sequence[Color]) -> float:
    return min((math.dist(color, other) for other in others), default=math.inf)
