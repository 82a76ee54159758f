"""A model that two processes share: the same tokens, and a group that lives and dies as one."""

import os
import signal
from collections.abc import Iterator
from threading import Semaphore

import pytest

from tests.end_to_end.harness import Server, launched, running, together
from tests.end_to_end.reference import Reference
from tests.end_to_end.watermarks import HEATED, score, told

PROMPTS = [f"Question {i}: what is the capital of France? " * (1 + i % 4) for i in range(6)]
TOKENS = 150
LEADER, FOLLOWER = "--number 0", "--number 1"


@pytest.fixture(scope="module")
def group() -> Iterator[Server]:
    """With drafts, and a rule for watermarks that is not the usual one."""
    with running(
        "--num-shard", "2", "--dtype", "float32", "--max-batch-prefill-tokens", "32",
        "--max-batch-total-tokens", "4096", "--speculate", "3", "--watermark-gamma", "0.25",
        env={"WATERMARK_DELTA": "6"},
    ) as started:  # fmt: skip
        yield started


def test_the_tokens_are_those_of_one_process(group: Server, reference: Reference) -> None:
    expected = [reference.greedy(reference.ids(p), 60).ids for p in PROMPTS]
    answers = together(
        len(PROMPTS), lambda i: group.generate(PROMPTS[i], max_new_tokens=60, details=True)
    )
    assert [[t["id"] for t in a["details"]["tokens"]] for a in answers] == expected
    metrics = group.metrics()
    assert 0 < metrics["millrace_accepted_tokens_total"] <= metrics["millrace_drafted_tokens_total"]
    assert metrics["tgi_request_skipped_tokens_sum"] == metrics["millrace_accepted_tokens_total"]


def test_another_rule_for_watermarks_with_drafts(group: Server, reference: Reference) -> None:
    """Greedy texts, too, where what is added is much."""
    drafted = group.metrics()["millrace_drafted_tokens_total"]
    plain = {"max_new_tokens": 60, "repetition_penalty": 1.1}
    texts = together(2, lambda i: told(group, 1, watermark=bool(i), **plain))
    assert score(reference, texts[1], gamma=0.25) > 4
    assert score(reference, texts[0], gamma=0.25) < 3
    heated = told(group, 1, watermark=True, max_new_tokens=60, **HEATED)
    assert score(reference, heated, gamma=0.25) > 4
    assert group.metrics()["millrace_drafted_tokens_total"] > drafted


def test_a_follower_that_is_killed_takes_its_leader_along(group: Server) -> None:
    """Clients see a pause. ``tests/chaos`` has the other ways to die."""
    expected = together(3, lambda i: group.greedy(PROMPTS[i], TOKENS))
    before = [group.pids(name)[0] for name in (LEADER, FOLLOWER)]
    begun = Semaphore(0)

    def run(i: int) -> str:
        if i == 3:
            for _ in range(2):
                assert begun.acquire(timeout=60)
            os.kill(before[1], signal.SIGKILL)
            return ""
        return group.greedy(PROMPTS[i], TOKENS, begun=begun.release)

    assert together(4, run)[:3] == expected
    assert group.metrics()["millrace_recovered_sequences_total"] >= 1
    after = [group.pids(name)[0] for name in (LEADER, FOLLOWER)]
    assert not set(before) & set(after)


def test_a_number_that_does_not_divide_stops_the_start() -> None:
    with launched("--num-shard", "3") as server:
        assert server.end(60) == 1
    sentence = "the model cannot be split over 3 shards (4 attention heads, 2 key-value heads"
    assert sentence in server.tail()
    assert "--num-shard may be 2, 4" in server.tail()
