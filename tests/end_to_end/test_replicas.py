"""Two replicas with little KV room: sharing, preemption, and the loss of a worker."""

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from tests.end_to_end.harness import Server, running, together
from tests.end_to_end.reference import Reference

PROMPTS = [f"Question {i}: what is the capital of France? " * (1 + i % 4) for i in range(16)]
TOKENS = 390
"""As many as there is room for: long enough to be struck on the way."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Server]:
    """Two workers; each has room for about three of the requests below, chunks of 32 tokens."""
    with running(
        "--num-replicas", "2",
        "--max-batch-total-tokens", "512",
        "--max-input-tokens", "300",
        "--max-total-tokens", "448",
        "--max-batch-prefill-tokens", "32",
    ) as started:  # fmt: skip
        yield started


def test_both_work_and_preemption_changes_nothing(pair: Server, reference: Reference) -> None:
    expected = [reference.greedy(reference.ids(p), 100).ids for p in PROMPTS]
    answers = together(
        len(PROMPTS), lambda i: pair.generate(PROMPTS[i], max_new_tokens=100, details=True)
    )
    assert [[t["id"] for t in a["details"]["tokens"]] for a in answers] == expected


def test_a_killed_worker_is_not_noticed(pair: Server) -> None:
    prompts = PROMPTS[:8]
    penalty = {"repetition_penalty": 1.1}
    expected = [pair.greedy(prompt, TOKENS, **penalty) for prompt in prompts]
    victim = pair.pids("--number 0")[0]
    streams = itertools.count(1)

    def begins() -> None:
        if next(streams) == 4:  # more than one worker has room for: both have some
            os.kill(victim, signal.SIGKILL)

    answers = together(
        len(prompts), lambda i: pair.greedy(prompts[i], TOKENS, begun=begins, **penalty)
    )
    assert answers == expected
    assert pair.metrics()["millrace_recovered_sequences_total"] >= 1
    pair.until(lambda: bool(pair.pids("--number 0")) and pair.pids("--number 0") != [victim], 60)


def test_nothing_is_left(pair: Server) -> None:
    def quiet() -> bool:
        series = pair.metrics()
        return series["tgi_batch_current_size"] == 0 and series["tgi_queue_size"] == 0

    pair.until(quiet)
