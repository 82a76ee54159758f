"""What speculation wins and loses: two engines, with drafts and without, in turns in one run.

usage: python -m bench.speculation MODEL_DIR [--speculate 4] [--rounds 3] [--worker-threads 2]
                                   [--processor-time]   for a machine that does other things, too

The engines are the worker's own, under a scheduler that costs nothing, greedy. What is won depends
on how much of the drafts is right, so there are, beside n-grams on whatever the model says, drafts
that are right by a given share: they repeat what the engine without drafts has said.
"""

import argparse
import logging
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.engine import InstantScheduler, Record, started
from launcher.commands.serve import kernel_cache
from worker.speculation.drafter import Drafter
from worker.speculation.ngrams import NgramDrafter

STREAMS = (1, 8)
PROMPT_TOKENS, NEW_TOKENS = 64, 128
RIGHT: dict[str, float | None] = {
    "n-grams": None,
    "all right": 1.0,
    "4 of 5 right": 0.8,
    "half right": 0.5,
    "none right": 0.0,
}
"""Kinds of drafts: the share of them that is right; None: by n-grams."""


class Repeating:
    """Drafts of a known text, each of them right with some probability. As ``MakeDrafter``."""

    def __init__(self) -> None:
        self.right: float | None = None
        self.texts: list[list[int]] = []

    def __call__(self, ids: list[int], longest: int) -> Drafter:
        """As ``MakeDrafter.__call__``."""
        if self.right is None:
            return NgramDrafter(ids, longest)
        text = next(text for text in self.texts if text[: len(ids)] == ids)
        return _Known(ids, text, self.right)


class _Known:
    def __init__(self, ids: list[int], text: Sequence[int], right: float) -> None:
        self._ids = ids
        self._text = text
        self._right = right
        self._chance = random.Random(text[0])

    def propose(self, most: int) -> list[int]:
        """As ``Drafter.propose``."""
        known = len(self._ids)
        return [
            token if self._chance.random() < self._right else token ^ 1
            for token in self._text[known : known + most]
        ]


@dataclass
class Side:
    """One engine."""

    scheduler: InstantScheduler
    clock: Callable[[], float] = time.perf_counter

    def run(self, streams: int) -> tuple[float, Record]:
        """Tokens a second, and what else there is to say."""
        prompts = [
            [(7 * stream + place) % 1000 + 3 for place in range(PROMPT_TOKENS)]
            for stream in range(streams)
        ]
        began = self.clock()
        record = self.scheduler.run(prompts, streams, NEW_TOKENS)
        return record.tokens / (self.clock() - began), record


def compare(
    model_dir: str, threads: int, tokens: int, rounds: int, clock: Callable[[], float]
) -> None:
    """Print the table."""
    repeating = Repeating()
    options: dict[str, Any] = {
        "kernel_cache": kernel_cache(os.environ),
        "worker_threads": threads,
        "max_batch_total_tokens": 8192,
    }
    plain = Side(InstantScheduler(started(model_dir, **options)), clock)
    drafting = Side(
        InstantScheduler(started(model_dir, repeating, speculate=tokens, **options)), clock
    )
    unit = "second" if clock is time.perf_counter else "second of processor time"
    print(f"--speculate {tokens}, {threads} threads; tokens a {unit}, medians of {rounds} rounds")
    print("| drafts | streams | without | with | ratio | drafts that were right | rows a step |")
    print("|---|---|---|---|---|---|---|")
    for kind, right in RIGHT.items():
        repeating.right = right
        for streams in STREAMS:
            repeating.texts = plain.run(streams)[1].texts  # and both are warm
            found = [(plain.run(streams), drafting.run(streams)) for _ in range(rounds)]
            print(row(kind, streams, found), flush=True)


def row(
    kind: str,
    streams: int,
    found: list[tuple[tuple[float, Record], tuple[float, Record]]],
) -> str:
    """A line of the table: of one kind of drafts, round by round."""
    without = statistics.median(speed for (speed, _), _ in found)
    with_drafts = statistics.median(speed for _, (speed, _) in found)
    ratio = statistics.median(ours / theirs for (theirs, _), (ours, _) in found)
    records = [record for _, (_, record) in found]
    drafted = sum(record.drafted for record in records)
    accepted = sum(record.accepted for record in records)
    steps = sum(len(record.decode_s) for record in records)
    share = f"{accepted / drafted:.0%} of {drafted // len(found)}" if drafted else "none made"
    rows = streams + drafted / max(steps, 1)
    return (
        f"| {kind} | {streams} | {without:.0f} | {with_drafts:.0f} | {ratio:.2f} | {share} |"
        f" {rows:.1f} |"
    )


def main() -> None:
    """Read the flags; compare."""
    parser = argparse.ArgumentParser(description="speculation, won and lost")
    parser.add_argument("model_dir")
    parser.add_argument("--speculate", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    torch.set_num_threads(options.worker_threads)
    torch.set_num_interop_threads(1)
    compare(options.model_dir, options.worker_threads, options.speculate, options.rounds, clock)


if __name__ == "__main__":
    main()
