"""What is measured: the rows of the table, and the work that stands behind each.

Every round has prompts of its own, the same for both sides: no prefix cache helps but where that is
what is measured. Knows nothing of who does the work.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.load import Work, random_prompts

NEW_TOKENS = 64
SHORT_WORDS = 64
FEWEST_TOKENS, MOST_TOKENS = 32, 96
WAVES = 4
LONG_WORDS = 1000
TAIL_WORDS = 8
SEEDS_OF_A_ROUND = 100


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    key: str
    title: str
    unit: str
    higher_is_better: bool = True


ROWS = (
    Row("streams_1", "1 stream", "tok/s"),
    Row("streams_8", "8 streams", "tok/s"),
    Row("streams_32", "32 streams", "tok/s"),
    Row("prefill", f"prompts, 4 × {LONG_WORDS:,} words", "tok/s"),
    Row("prefix_cold", f"first token after {LONG_WORDS:,} words", "ms", False),
    Row("prefix_warm", "first token, prefix seen before", "ms", False),
    Row("sustained_8", "8 streams, sustained", "tok/s"),
    Row("sustained_32", "32 streams, sustained", "tok/s"),
)


def works(number: int, *, sustained: bool = False) -> dict[str, Work]:
    """A round's work by row, in the order in which it is done.

    ``sustained``: and load in which answers end, and others begin, one by one.
    """
    seed = number * SEEDS_OF_A_ROUND
    found = {}
    for streams in (1, 8, 32):
        prompts = random_prompts(max(2, streams), SHORT_WORDS, seed=seed + streams)
        found[f"streams_{streams}"] = _equal(prompts, streams, NEW_TOKENS)
    found["prefill"] = _equal(random_prompts(4, LONG_WORDS, seed=seed + 50), 4, 1)
    cold, *warm = random_prompts(4, TAIL_WORDS, seed=seed + 51, shared_words=LONG_WORDS)
    found["prefix_cold"] = _equal([cold], 1, 1)
    found["prefix_warm"] = _equal(warm, 1, 1)
    for streams in (8, 32) if sustained else ():
        prompts = random_prompts(WAVES * streams, SHORT_WORDS, seed=seed + 60 + streams)
        rng = random.Random(seed + streams)
        lengths = [rng.randint(FEWEST_TOKENS, MOST_TOKENS) for _ in prompts]
        found[f"sustained_{streams}"] = Work(prompts, streams, lengths)
    return found


def _equal(prompts: list[str], streams: int, new_tokens: int) -> Work:
    return Work(prompts, streams, [new_tokens] * len(prompts))


def warm_up() -> list[Work]:
    """Work that is not counted: a full batch, and a long prompt."""
    return [
        _equal(random_prompts(32, SHORT_WORDS, seed=-1), 32, 8),
        _equal(random_prompts(1, LONG_WORDS, seed=-2), 1, 1),
    ]


def value(
    key: str, work: Work, figures: Mapping[str, Any], count: Callable[[list[str]], int]
) -> float | None:
    """The figure that counts; ``count`` gives the tokens of prompts. None: not to be had."""
    if key == "prefill":
        return round(count(work.prompts) / float(figures["wall_s"]), 1)
    if key.startswith("prefix"):
        return float(figures["ttft_ms_p50"]) or None
    return float(figures["tok_s"])
