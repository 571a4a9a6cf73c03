"""An HTML page in one file: text is escaped, pictures are embedded, nothing is loaded from elsewhere.

Names of cases, labels and folders come from users and their files; every text that enters a page goes through `text`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmae.files import write_text

NO_VALUE = "–"

STYLE = """
:root { --ink: #1c2733; --soft: #5b6876; --line: #dde3e9; --wash: #f5f7f9; --accent: #1f6fb2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue",
  Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 40px 28px 72px; }
header { border-bottom: 3px solid var(--accent); padding-bottom: 14px; margin-bottom: 22px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 44px 0 10px; padding-top: 4px; }
h3 { font-size: 16px; margin: 26px 0 6px; overflow-wrap: anywhere; }
p { margin: 8px 0; max-width: 74ch; }
.lead { color: var(--soft); margin: 0; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.fact { background: var(--wash); border-radius: 8px; padding: 12px 18px; min-width: 128px; }
.fact b { display: block; font-size: 25px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.fact span { color: var(--soft); font-size: 13.5px; }
figure { margin: 14px 0 22px; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption, caption { color: var(--soft); font-size: 14px; text-align: left; padding: 6px 0; max-width: 84ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0 20px; font-size: 14.5px; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); white-space: nowrap;
  overflow-wrap: normal; }
td.number, th.number { text-align: right; padding-left: 18px; white-space: nowrap; }
tr.strong td { font-weight: 650; }
td:first-child, th:first-child { padding-left: 9px; }
tr.weak td:first-child { box-shadow: inset 3px 0 0 #d9822b; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px;
  border: 1px solid rgba(0,0,0,.25); }
.legend { font-size: 14px; color: var(--soft); }
.legend span.item { margin-right: 18px; white-space: nowrap; display: inline-block; }
pre { background: var(--wash); border-radius: 8px; padding: 12px 16px; font: 13.5px/1.5 ui-monospace, "SF Mono",
  Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0 16px; }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--accent); }
.warning { border-left: 4px solid #d9822b; background: #fdf5ec; padding: 8px 16px; border-radius: 0 8px 8px 0; }
footer { margin-top: 48px; border-top: 1px solid var(--line); padding-top: 10px; color: var(--soft); font-size: 13px; }
@media print { main { max-width: none; padding: 0; } body { font-size: 11pt; } h2, h3 { break-after: avoid; }
  figure, table, .facts { break-inside: avoid; } .fact, pre { border: 1px solid var(--line); } }
"""


def text(value: Any) -> str:
    """Any value as escaped text; None as a dash."""
    return html.escape(NO_VALUE if value is None else str(value), quote=True)


def number(value: float | None, digits: int = 3) -> str:
    """A figure with fixed decimals, None as a dash."""
    return NO_VALUE if value is None else f"{value:.{digits}f}"


class Page:
    """Collects the parts of a page in order. Arguments are plain text, never HTML."""

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._parts = [f"<header><h1>{text(title)}</h1><p class='lead'>{text(lead)}</p></header>"]

    def section(self, title: str) -> None:
        """Start a section."""
        self._parts.append(f"<h2>{text(title)}</h2>")

    def subsection(self, title: str) -> None:
        """Start a part of a section."""
        self._parts.append(f"<h3>{text(title)}</h3>")

    def paragraph(self, content: str) -> None:
        """A paragraph of text."""
        self._parts.append(f"<p>{text(content)}</p>")

    def warning(self, content: str) -> None:
        """A paragraph that must not be missed."""
        self._parts.append(f"<p class='warning'>{text(content)}</p>")

    def facts(self, values: Mapping[str, str | None]) -> None:
        """The few figures that matter, large."""
        cells = "".join(f"<div class='fact'><b>{text(value)}</b><span>{text(name)}</span></div>"
                        for name, value in values.items())
        self._parts.append(f"<div class='facts'>{cells}</div>")

    def commands(self, lines: Iterable[str]) -> None:
        """Command lines, to be copied."""
        self._parts.append(f"<pre>{text(chr(10).join(lines))}</pre>")

    def figure(self, png: bytes, alt: str, caption: str = "", width: int | None = None) -> None:
        """An embedded PNG; `alt` tells those who cannot see it what it shows, `width` is in CSS pixels."""
        data = base64.b64encode(png).decode("ascii")
        size = f" width='{int(width)}'" if width else ""
        below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
        self._parts.append(f"<figure><img src='data:image/png;base64,{data}' alt='{text(alt)}'{size}>{below}</figure>")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "", *,
              numeric: Iterable[int] = (), strong: Iterable[int] = (), weak: Iterable[int] = ()) -> None:
        """A table; `numeric` columns are set right, `strong` rows bold, `weak` rows marked."""
        right, bold, marked = set(numeric), set(strong), set(weak)

        def cells(row: Sequence[Any], tag: str) -> str:
            return "".join(f"<{tag}{' class=number' if index in right else ''}>{text(value)}</{tag}>"
                           for index, value in enumerate(row))

        body = "".join(f"<tr class='{'strong' if index in bold else 'weak' if index in marked else ''}'>"
                       f"{cells(row, 'td')}</tr>" for index, row in enumerate(rows))
        below = f"<caption>{text(caption)}</caption>" if caption else ""
        self._parts.append(f"<div class='scroll'><table>{below}<thead><tr>{cells(columns, 'th')}</tr></thead>"
                           f"<tbody>{body}</tbody></table></div>")

    def pairs(self, values: Mapping[str, Any]) -> None:
        """Names and values below each other."""
        self._parts.append(_pairs(values))

    def legend(self, colors: Mapping[str, tuple[float, float, float]], note: str = "") -> None:
        """Names with their colours (red, green, blue in 0..1)."""
        items = "".join(f"<span class='item'><span class='swatch' style='background:{_css(color)}'></span>"
                        f"{text(name)}</span>" for name, color in colors.items())
        self._parts.append(f"<p class='legend'>{items}{text(note)}</p>")

    def details(self, summary: str, values: Mapping[str, Any]) -> None:
        """Names and values that are folded away until asked for; nested values are flattened with dots."""
        self._parts.append(f"<details><summary>{text(summary)}</summary>{_pairs(flat(values))}</details>")

    def html(self, footer: str) -> str:
        """The whole document."""
        policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        return ("<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
                f"<meta http-equiv='Content-Security-Policy' content=\"{policy}\">"
                "<meta name='viewport' content='width=device-width, initial-scale=1'>"
                f"<title>{text(self.title)}</title><style>{STYLE}</style></head><body><main>\n"
                + "\n".join(self._parts) + f"\n<footer>{text(footer)}</footer></main></body></html>\n")

    def write(self, path: Path, footer: str) -> Path:
        """Write the document atomically and return its path."""
        write_text(path, self.html(footer))
        return path


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots; lists as comma-separated text."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and not any(isinstance(one, (Mapping, list)) for one in value):
            result[prefix + key] = ", ".join(map(str, value))
        else:
            result[prefix + key] = value
    return result


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{text(name)}</td><td>{text(value)}</td></tr>" for name, value in values.items())
    return f"<table><tbody>{rows}</tbody></table>"


def _css(color: tuple[float, float, float]) -> str:
    red, green, blue = (round(255 * min(max(float(part), 0.0), 1.0)) for part in color)
    return f"rgb({red},{green},{blue})"
