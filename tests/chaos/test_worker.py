"""A worker that dies or hangs: everybody's text goes on, and health says what is going on."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.scene import Scene, Watch, scene
from tests.chaos.talk import Talk, together

LIVE, READY, PROGRESS = "/health/live", "/health/ready", "/health/progress"
DEATHS = 4


@pytest.fixture(scope="module")
def alone() -> Iterator[Scene]:
    with scene() as made:
        yield made


@pytest.fixture(scope="module")
def pair() -> Iterator[Scene]:
    with scene(replicas=2) as made:
        yield made


@pytest.mark.parametrize("each", [1, 4])
def test_a_killed_worker(alone: Scene, survived: Survived, each: int) -> None:
    before = alone.metric("millrace_replicas_lost_total")

    def strike(talks: list[Talk]) -> None:
        os.kill(alone.pid("-m worker"), signal.SIGKILL)

    with Watch(alone.server) as health:
        outcomes = together(alone.server, KINDS * each, strike)
        alone.settle()
    survived("kill -9 of the worker", outcomes)
    assert health.seen[LIVE] == health.seen[PROGRESS] == {200}
    assert health.seen[READY] == {200, 503}
    assert alone.metric("millrace_replicas_lost_total") == before + 1
    assert alone.metric("millrace_recovered_sequences_total") > len(KINDS) // 2


def test_a_killed_worker_without_work(alone: Scene) -> None:
    with Watch(alone.server) as health:
        os.kill(alone.pid("-m worker"), signal.SIGKILL)
        alone.server.until(lambda: 503 in health.seen[READY], 30)
        alone.settle()
    assert health.seen[LIVE] == {200}


def test_a_worker_that_is_killed_again_and_again(alone: Scene, survived: Survived) -> None:
    def all_run() -> bool:
        metrics = alone.server.metrics()
        return not metrics["tgi_queue_size"] and metrics["tgi_batch_current_size"] > 0

    def strike(talks: list[Talk]) -> None:
        for _ in range(DEATHS):
            before = alone.metric("millrace_replicas_lost_total")
            assert any(not talk.over for talk in talks), "the texts are too short for this test"
            os.kill(alone.pid("-m worker"), signal.SIGKILL)
            alone.server.until(
                lambda old=before: alone.metric("millrace_replicas_lost_total") > old, 30
            )
            # As long as somebody is under suspicion the others wait in the queue.
            alone.server.until(lambda: all_run() or all(t.over for t in talks), 60)

    outcomes = together(alone.server, KINDS, strike)
    alone.settle()
    survived(f"kill -9 of the worker, {DEATHS} times", outcomes)
    assert alone.metric("millrace_poisonous_sequences_total") == 0


@pytest.mark.parametrize("each", [1, 4])
def test_a_stopped_worker(alone: Scene, survived: Survived, each: int) -> None:
    before = alone.metric("millrace_replicas_hung_total")

    def strike(talks: list[Talk]) -> None:
        os.kill(alone.pid("-m worker"), signal.SIGSTOP)

    with Watch(alone.server) as health:
        outcomes = together(alone.server, KINDS * each, strike)
        alone.settle()
    survived("kill -STOP of the worker", outcomes)
    assert health.seen[LIVE] == {200}
    assert health.seen[READY] == {200, 503}
    assert health.seen[PROGRESS] == {200, 503}
    stalled = [document["error"] for document in health.documents if "error" in document]
    assert all("replica 0 has made no progress for" in error for error in stalled)
    assert alone.metric("millrace_replicas_hung_total") == before + 1


def test_one_of_two_replicas(pair: Scene, survived: Survived) -> None:
    def strike(talks: list[Talk]) -> None:
        os.kill(pair.pid("--number 0"), signal.SIGKILL)

    with Watch(pair.server) as health:
        outcomes = together(pair.server, KINDS, strike)
        pair.settle()
    survived("kill -9 of one of two workers", outcomes)
    assert health.seen == {LIVE: {200}, READY: {200}, PROGRESS: {200}}
    assert any(not replica["ready"] for d in health.documents for replica in d["replicas"])


def test_both_replicas_and_the_scheduler_at_once(pair: Scene, survived: Survived) -> None:
    def strike(talks: list[Talk]) -> None:
        for what in ("--number 0", "-m scheduler", "--number 1"):
            os.kill(pair.pid(what), signal.SIGKILL)

    outcomes = together(pair.server, KINDS, strike)
    pair.settle()
    survived("kill -9 of both workers and the scheduler", outcomes)
