"""The figures of ``bench.gpu`` as tables for people."""

from typing import Any

SHOWN = 12
"""Kernels of a table."""


def text_of(found: dict[str, Any]) -> str:
    """Everything."""
    engine, http = found["engine"], found["http"]
    lines = [
        f"{engine['device']}, torch {engine['torch']}, {engine['dtype']}, shape {found['shape']}, "
        f"{found['prompt_tokens']} in / {found['new_tokens']} out; copies {engine['copy_gb_s']:,}"
        f" GB/s, bf16 matrices {engine['matrix_tflop_s']:,} TFLOP/s",
        "",
        "| streams | HTTP, tok/s | engine, tok/s | HTTP / engine | TTFT p50, ms | ITL p50, ms |"
        " step, ms | floor, ms | step / floor |",
        "|---" * 9 + "|",
    ]
    for streams, alone in engine["streams"].items():
        served = http["streams"][streams]
        lines.append(
            f"| {streams} | {served['tok_s']:,} | {alone['tok_s']:,}"
            f" | {served['tok_s'] / alone['tok_s']:.2f} | {served['ttft_ms_p50']:,}"
            f" | {served['itl_ms_p50']} | {alone['step_ms']} | {alone['floor_ms']}"
            f" | {alone['step_over_floor']} |"
        )
    reading = engine["reading"]
    lines += [
        "",
        f"first token of {found['prompt_tokens']} tokens, idle: {http['first_token_ms']} ms over"
        f" HTTP, {engine['first_token_ms']} ms in the engine; prompts {reading['tok_s']:,} tok/s,"
        f" {100 * reading['share_of_matrix_rate']:.0f} % of the matrix rate",
    ]
    for profile in engine["decode_profiles"]:
        lines += _kernels(f"one decode step of {profile['streams']} streams", profile)
    profile = engine["reading_profile"]
    lines += _kernels(f"one step that reads {profile['tokens']} prompt tokens", profile)
    return "\n".join(lines)


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
