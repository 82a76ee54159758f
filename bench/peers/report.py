"""The table and the plot of a comparison. Reads results, writes nothing else."""

import importlib
from pathlib import Path
from typing import Any

from bench.peers.registry import PEERS
from bench.peers.results import OURS, Results
from bench.peers.rows import ROWS

PLOTTED = ROWS[:4]


def table(results: Results) -> str:
    """Markdown: a column for each contender with figures, and what is to be said besides."""
    peers = [name for name, rounds in results.rounds.items() if rounds]
    lines = [
        "| | " + " | ".join([OURS, *peers]) + " |",
        "|---" * (2 + len(peers)) + "|",
    ]
    for row in ROWS:
        cells = [_number(results.ours(row.key))]
        for peer in peers:
            value, ratio = results.value(peer, peer, row.key), results.ratio(peer, row.key)
            cells.append("–" if ratio is None else f"{_number(value)} ({ratio:.2f})")
        lines.append(f"| {row.title}, {row.unit} | " + " | ".join(cells) + " |")
    lines.append(
        "\nMedians; in brackets ours / theirs, the median of the ratios within each round: more is"
        " better for tok/s, less for ms."
    )
    for name in [OURS, *peers]:
        about = results.contenders[name]
        version = f" ({about['version']})" if about["version"] else ""
        rounds = f", {len(results.rounds[name])} rounds" if name in results.rounds else ""
        lines.append(f"- {name}: {about['how']}{version}, ready after {about['start_s']} s{rounds}")
    lines += [f"- {name}: no figures: {why}" for name, why in results.troubles.items()]
    return "\n".join([*lines, *_attention(results), *_machine(results)])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _attention(results: Results) -> list[str]:
    found = results.attention()
    if found is None:
        return []
    times = found["attention_ms"] / found["read_ms"]
    return [
        f"\nA step of {found['streams']:.0f} streams at context {found['context']:,.0f}:"
        f" {found['step_ms']:.1f} ms, of which attention to that context takes"
        f" {found['attention_ms']:.1f} ms, {times:.1f} times what reading each key and value once"
        f" takes at {found['gb_s']} GB/s ({found['read_ms']:.1f} ms)."
    ]


def _machine(results: Results) -> list[str]:
    found = results.machine
    if not found:
        return []
    dtypes = {"bf16_matrix_gflop_s": "bfloat16", "f32_matrix_gflop_s": "float32"}
    measured = next(key for key in dtypes if key in found)
    return [
        f"\nMachine: {found['cores']} cores of {found['name']}"
        f" (family, model, stepping {' '.join(found['family_model_stepping'])};"
        f" {' '.join(found['flags'])}), torch {found['torch']}. By threads: memory read at"
        f" {_by_threads(found['read_gb_s'])} GB/s, {dtypes[measured]} matrices of"
        f" 2,048 at {_by_threads(found[measured])} GFLOP/s."
    ]


def _by_threads(values: dict[str, float]) -> str:
    return ", ".join(f"{value:g} ({threads})" for threads, value in values.items())


def plot(results: Results, path: Path) -> None:
    """Bars of every contender by row. Raises ImportError without matplotlib."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    # Text stays text, and the same figures make the same file: pictures are kept.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "millrace"})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    known = [peer.name for peer in PEERS if results.rounds.get(peer.name)]
    names = [OURS, *known]
    figure, panels = pyplot.subplots(1, len(PLOTTED), figsize=(3 * len(PLOTTED), 3.6))
    for row, panel in zip(PLOTTED, panels, strict=True):
        values = [results.ours(row.key)]
        values += [results.value(name, name, row.key) for name in known]
        colours = ["tab:orange"] + ["tab:gray"] * len(known)
        bars = panel.bar(names, [value or 0.0 for value in values], color=colours)
        panel.bar_label(bars, [_number(value) for value in values], fontsize=7)
        panel.set_title(f"{row.title}, {row.unit}", fontsize=9)
        panel.tick_params(axis="x", rotation=60, labelsize=7)
        panel.tick_params(axis="y", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
