"""The figures of ``bench.gpu`` as tables for people."""

from typing import Any

from bench.gpu.kernels import FLOOR

NOTHING = "–"
SHOWN = 12
"""Kernels of a table."""


def text_of(found: dict[str, Any]) -> str:
    """Everything that has been measured; what has not shows as a dash."""
    engine, http = found["engine"], found.get("http", {})
    lines = [
        f"{engine['device']}, torch {engine['torch']}, {engine.get('dtype', NOTHING)}, shape"
        f" {found['shape']}, {found['prompt_tokens']} in / {found['new_tokens']} out; copies"
        f" {engine['copy_gb_s']:,} GB/s, bf16 matrices {engine['matrix_tflop_s']:,} TFLOP/s",
        "",
        "| streams | HTTP, tok/s | engine, tok/s | HTTP / engine | TTFT p50, ms | ITL p50, ms |"
        " step, ms | floor, ms | step / floor |",
        "|---" * 9 + "|",
    ]
    measured = engine.get("streams", {}) | http.get("streams", {})
    for streams in sorted(measured, key=int):
        alone = engine.get("streams", {}).get(streams, {})
        served = http.get("streams", {}).get(streams, {})
        both = "tok_s" in alone and "tok_s" in served
        share = f"{served['tok_s'] / alone['tok_s']:.2f}" if both else NOTHING
        lines.append(
            f"| {streams} | {_shown(served, 'tok_s')} | {_shown(alone, 'tok_s')} | {share}"
            f" | {_shown(served, 'ttft_ms_p50')} | {_shown(served, 'itl_ms_p50')}"
            f" | {_shown(alone, 'step_ms')} | {_shown(alone, 'floor_ms')}"
            f" | {_shown(alone, 'step_over_floor')} |"
        )
    reading = engine.get("reading", {})
    lines += [
        "",
        f"first token of {found['prompt_tokens']} tokens, idle: {_shown(http, 'first_token_ms')} ms"
        f" over HTTP, {_shown(engine, 'first_token_ms')} ms in the engine; prompts"
        f" {_shown(reading, 'tok_s')} tok/s, {_shown(reading, 'share_of_matrix_rate')} of the"
        " matrix rate",
    ]
    for name, part in (("engine", engine), ("HTTP", http)):
        if part.get("left_out"):
            lines.append(f"left out of {name}: {', '.join(part['left_out'])}")
    for streams, profile in engine.get("decode_profiles", {}).items():
        lines += _kernels(f"one decode step of {streams} streams", profile)
    if "reading_profile" in engine:
        profile = engine["reading_profile"]
        lines += _kernels(f"one step that reads {profile['tokens']} prompt tokens", profile)
    linear = {
        f"{name}, {rows}": taken
        for name, by_rows in engine.get("linear_ms", {}).items()
        for rows, taken in by_rows.items()
    }
    lines += _beside("linear layer, rows", linear)
    lines += _beside("experts of one layer", engine.get("experts_ms", {}))
    lines += _beside("attention of one layer", engine.get("attention_ms", {}))
    for name, why in engine.get("attention_missing", {}).items():
        lines.append(f"no attention by {name}: {why}")
    return "\n".join(lines)


def _beside(title: str, taken: dict[str, dict[str, float]]) -> list[str]:
    """Microseconds of kernels that do the same, the fastest in bold."""
    names = list(dict.fromkeys(name for each in taken.values() for name in each))
    if not names:
        return []
    lines = ["", f"| {title}, µs | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for case, each in taken.items():
        least = min((ms for name, ms in each.items() if name != FLOOR), default=0.0)
        cells = [NOTHING if name not in each else f"{1e3 * each[name]:,.1f}" for name in names]
        cells = [
            f"**{cell}**" if name != FLOOR and each.get(name) == least else cell
            for name, cell in zip(names, cells, strict=True)
        ]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


def _shown(part: dict[str, Any], name: str) -> str:
    return f"{part[name]:,}" if name in part else NOTHING


def _kernels(title: str, profile: dict[str, Any]) -> list[str]:
    floors = profile["floor_ms_by_group"]
    lines = [
        "",
        f"{title}: the device idle {100 * profile['idle_share']:.1f} % of the time",
        "",
        "| what | launches | ms | floor, ms |",
        "|---|---|---|---|",
    ]
    for group, ms in profile["ms_by_group"].items():
        floor = f"{floors[group]:.3f}" if group in floors else "–"
        lines.append(f"| **{group}** | | {ms:.3f} | {floor} |")
    lines += [
        f"| {row['name'][:60]} | {row['launches']:g} | {row['ms']:.3f} | |"
        for row in profile["kernels"][:SHOWN]
    ]
    return lines
