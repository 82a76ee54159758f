"""Two replicas with little KV room: sharing, preemption, and the loss of a worker."""

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


def streamed(server: Server, prompt: str) -> str:
    """Long enough to be interrupted: the end token does not end it."""
    body = {"prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    body |= {"repetition_penalty": 1.1, "stream": True, "stream_options": {"include_usage": True}}
    *events, usage, done = server.post("/v1/completions", body).events()
    assert done == "[DONE]"
    assert all("error" not in event for event in events), events[-1]
    assert usage["usage"]["completion_tokens"] == TOKENS
    return "".join(event["choices"][0]["text"] for event in events)


def test_both_work_and_preemption_changes_nothing(pair: Server, reference: Reference) -> None:
    expected = [reference.greedy(reference.ids(p), 100).ids for p in PROMPTS]
    answers = together(
        len(PROMPTS), lambda i: pair.generate(PROMPTS[i], max_new_tokens=100, details=True)
    )
    assert [[t["id"] for t in a["details"]["tokens"]] for a in answers] == expected


def test_a_killed_worker_is_not_noticed(pair: Server) -> None:
    expected = [streamed(pair, prompt) for prompt in PROMPTS[:8]]
    victim = pair.pids("--number 0")[0]

    def run(i: int) -> str:
        if i == 0:  # both have some then
            pair.until(lambda: pair.metrics()["tgi_batch_current_size"] >= 4)
            os.kill(victim, signal.SIGKILL)
            return ""
        return streamed(pair, PROMPTS[i - 1])

    answers = together(9, run)
    assert answers[1:] == expected
    pair.until(lambda: bool(pair.pids("--number 0")) and pair.pids("--number 0") != [victim], 60)


def test_nothing_is_left(pair: Server) -> None:
    def quiet() -> bool:
        series = pair.metrics()
        return series["tgi_batch_current_size"] == 0 and series["tgi_queue_size"] == 0

    pair.until(quiet)
