"""A picture of the Grafana dashboard without Grafana: its own queries, its own places, matplotlib.

Reads ``millrace.json`` as Grafana does, asks Prometheus what each panel asks, and draws the answer
where the panel stands. Knows the three types of panels that the dashboard has, nothing of what is
measured. Colours and ticks are matplotlib's: it shows what the dashboard tells, not how Grafana
looks.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tests.deploy.queries import dashboard

Panel = dict[str, Any]
Series = list[dict[str, Any]]
Ask = Callable[[str], Series]
"""From an expression to Prometheus's matrix of a range."""
COLUMNS = 24
CELL_INCHES = (0.72, 0.34)
MARGIN = 0.12
"""Share of a cell that stays free around a panel."""
_INK, _GROUND, _PANEL = "#d8d9da", "#111217", "#181b1f"


def draw(ask: Ask, path: Path) -> list[str]:
    """Write the picture; the titles of panels that had nothing to show."""
    panels = dashboard()["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure((COLUMNS * CELL_INCHES[0], rows * CELL_INCHES[1]), dpi=75, facecolor=_GROUND)
    canvas = FigureCanvasAgg(figure)
    empty = []
    for panel in panels:
        axes = figure.add_axes(_place(panel, rows), facecolor=_PANEL)
        if panel["type"] == "row":
            axes.axis("off")
            axes.text(0, 0.2, panel["title"], color="white", fontsize=13, weight="bold")
        elif not _panel(axes, panel, ask):
            empty.append(panel["title"])
    canvas.print_png(str(path), pil_kwargs={"optimize": True})
    return empty


def _place(panel: Panel, rows: int) -> tuple[float, float, float, float]:
    at = panel["gridPos"]
    header = {"row": 0.0, "stat": 0.9}.get(panel["type"], 1.3)
    left = 0.0 if panel["type"] in {"row", "stat"} else 0.75
    below = 0.0 if panel["type"] in {"row", "stat"} else 0.75
    return (
        (at["x"] + left + MARGIN) / COLUMNS,
        (rows - at["y"] - at["h"] + below + MARGIN) / rows,
        (at["w"] - left - 3 * MARGIN) / COLUMNS,
        (at["h"] - header - below - MARGIN) / rows,
    )


def _panel(axes: Axes, panel: Panel, ask: Ask) -> bool:
    """Draw one; whether there was anything."""
    axes.set_title(panel["title"], loc="left", color=_INK, fontsize=9)
    axes.tick_params(colors=_INK, labelsize=6, length=2)
    for spine in axes.spines.values():
        spine.set_color("#2c3235")
    answers = [(target, ask(_expression(target["expr"]))) for target in panel.get("targets", [])]
    answers = [(target, series) for target, series in answers if series]
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
    if not answers:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "No data", color=_INK, ha="center", transform=axes.transAxes)
        return False
    {"stat": _number, "timeseries": _lines, "heatmap": _heat}[panel["type"]](axes, answers, unit)
    return True


def _expression(text: str) -> str:
    return text.replace("$instance", ".*").replace("$__rate_interval", "15s")


def _number(axes: Axes, answers: list[tuple[Panel, Series]], unit: str) -> None:
    values = [_value(value) for _, value in answers[0][1][0]["values"]]
    last = next((value for value in reversed(values) if not math.isnan(value)), math.nan)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(
        0.5, 0.45, _said(last, unit), color="#73bf69", fontsize=20, weight="bold",
        ha="center", va="center", transform=axes.transAxes,
    )  # fmt: skip


def _lines(axes: Axes, answers: list[tuple[Panel, Series]], unit: str) -> None:
    for target, series in answers:
        for one in series:
            times = [float(time) - float(series[0]["values"][0][0]) for time, _ in one["values"]]
            values = [_value(value) for _, value in one["values"]]
            axes.plot(times, values, linewidth=1.2, label=_legend(target, one["metric"]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _said(value, unit)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylim(bottom=0)
    axes.grid(color="#2c3235", linewidth=0.5)
    axes.legend(
        fontsize=5.5, loc="upper left", frameon=False, labelcolor=_INK, handlelength=1, ncols=2
    )


def _heat(axes: Axes, answers: list[tuple[Panel, Series]], unit: str) -> None:
    """Buckets are cumulative: each row shows what its own bucket has."""
    series = sorted(answers[0][1], key=lambda one: _value(one["metric"]["le"]))
    times = sorted({float(time) for one in series for time, _ in one["values"]})
    table = [[dict(_pairs(one)).get(time, 0.0) for time in times] for one in series]
    own = [
        [max(0.0, high - low) for high, low in zip(above, below, strict=True)]
        for below, above in zip([[0.0] * len(times), *table[:-1]], table, strict=True)
    ]
    axes.imshow(own, aspect="auto", origin="lower", cmap="inferno", interpolation="nearest")
    marks = range(0, len(series), max(1, len(series) // 6))
    axes.set_yticks(list(marks), [_said(_value(series[i]["metric"]["le"]), "s") for i in marks])
    axes.set_xticks([])


def _pairs(one: dict[str, Any]) -> list[tuple[float, float]]:
    return [(float(time), _value(value)) for time, value in one["values"]]


def _value(text: str) -> float:
    return math.inf if text == "+Inf" else float(text)


def _legend(target: Panel, metric: dict[str, str]) -> str:
    form = target.get("legendFormat") or target["refId"]
    return re.sub(r"\{\{(\w+)\}\}", lambda found: metric.get(found[1], ""), form)


def _said(value: float, unit: str) -> str:
    """A number as Grafana says it, about."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-"
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    suffix = {"s": " s", "reqps": " /s"}.get(unit, "")
    return f"{value / 1000:.3g}k{suffix}" if abs(value) >= 1000 else f"{value:.3g}{suffix}"
