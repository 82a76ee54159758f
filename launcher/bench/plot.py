"""The picture of a benchmark: one SVG file, written here.

A plotting library would be larger than everything else that the server installs but torch, for four
line charts. Several runs: percentiles over what varied (rate or concurrency). One run: how its
values are distributed. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_LEGEND = 14
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
_MOST_POINTS = 400
_TICKS = 5


@dataclass(frozen=True)
class Line:
    """A name and its points."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Lines over common axes, which both begin at 0."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]


def distribution(name: str, values: Sequence[float]) -> Line:
    """Share of the values (%) that are at most x."""
    ordered = sorted(values)
    count = len(ordered)
    chosen = sorted({count * step // _MOST_POINTS for step in range(_MOST_POINTS)} | {count - 1})
    return Line(name, tuple((ordered[i], 100 * (i + 1) / count) for i in chosen if i >= 0))


def picture(title: str, charts: Sequence[Chart]) -> str:
    """The SVG document, two charts in a row."""
    rows = -(-len(charts) // 2)
    width, height = 2 * WIDTH, rows * HEIGHT + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(width / 2, 26, title, size=16),
    ]
    for number, chart in enumerate(charts):
        x, y = number % 2 * WIDTH, number // 2 * HEIGHT + 40
        parts += [f'<g transform="translate({x},{y})">', *_chart(chart), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _chart(chart: Chart) -> list[str]:
    points = [point for line in chart.lines for point in line.points]
    right = _ceiling(max((x for x, _ in points), default=1.0))
    top = _ceiling(max((y for _, y in points), default=1.0))

    high = HEIGHT - _BOTTOM - _TOP - _LEGEND * len(chart.lines)  # names stand above the lines

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (WIDTH - _LEFT - _RIGHT) * x / right, high * y / top
        return round(_LEFT + across, 1), round(HEIGHT - _BOTTOM - up, 1)

    parts = [_text(WIDTH / 2, 18, chart.title, size=13)]
    parts += _text(WIDTH / 2, HEIGHT - 12, chart.x_label), _text(14, 40, chart.y_label, "start")
    for step in range(_TICKS + 1):
        x, floor = place(right * step / _TICKS, 0)
        left, y = place(0, top * step / _TICKS)
        parts.append(
            f'<line x1="{left}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}" stroke="#dddddd"/>'
        )
        parts.append(_text(left - 6, y + 4, _number(top * step / _TICKS), "end"))
        parts.append(_text(x, floor + 18, _number(right * step / _TICKS)))
    for number, line in enumerate(chart.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        parts += _line(line, [place(*point) for point in line.points], colour)
        parts.append(_text(WIDTH - _RIGHT, 34 + _LEGEND * number, line.name, "end", colour))
    return parts


def _line(line: Line, places: list[tuple[float, float]], colour: str) -> list[str]:
    path = " ".join(f"{x},{y}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    if len(places) <= 2 * _TICKS:
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
    return parts


def _text(
    x: float, y: float, text: str, anchor: str = "middle", colour: str = "#333333", size: int = 12
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
        f"{escape(text)}</text>"
    )


def _ceiling(value: float) -> float:
    """The next number that divides well into ticks."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        step * power for step in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if step * power >= value
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
