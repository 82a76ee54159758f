"""The scheduler dies: front ends hand in what runs, workers drop the old epoch, texts go on."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.scene import HANG_S, Scene, Watch, scene
from tests.chaos.talk import Talk, together

DEATHS = 3
FEW_EVENTS = 6
LONG_S = 60.0


@pytest.fixture(scope="module")
def house() -> Iterator[Scene]:
    with scene(frontends=2) as made:
        yield made


def test_a_killed_scheduler(house: Scene, survived: Survived) -> None:
    workers = house.server.pids("-m worker")

    def strike(talks: list[Talk]) -> None:
        os.kill(house.pid("-m scheduler"), signal.SIGKILL)

    with Watch(house.server) as health:
        outcomes = together(house.server, KINDS, strike)
        house.settle()
    survived("kill -9 of the scheduler", outcomes)
    assert health.seen["/health/live"] == {200}
    assert house.server.pids("-m worker") == workers


def test_a_scheduler_that_is_killed_again_and_again(house: Scene, survived: Survived) -> None:
    def strike(talks: list[Talk]) -> None:
        for _ in range(DEATHS):
            seen = [talk.received for talk in talks]
            os.kill(house.pid("-m scheduler"), signal.SIGKILL)
            house.server.until(
                lambda before=seen: any(
                    talk.over or talk.received > count + FEW_EVENTS
                    for talk, count in zip(talks, before, strict=True)
                ),
                60,
            )

    outcomes = together(house.server, KINDS, strike)
    house.settle()
    survived(f"kill -9 of the scheduler, {DEATHS} times", outcomes)


def test_a_stopped_scheduler(house: Scene, survived: Survived) -> None:
    """It is taken for hung, killed and replaced, also by a listener that began after it."""
    os.kill(house.pid("launcher.listener"), signal.SIGKILL)
    stopped = house.pid("-m scheduler")

    def strike(talks: list[Talk]) -> None:
        os.kill(stopped, signal.SIGSTOP)
        house.server.until(lambda: stopped not in house.server.pids("-m scheduler"), 30)

    with Watch(house.server) as health:
        outcomes = together(house.server, KINDS, strike)
        house.settle()
    survived(f"kill -STOP of the scheduler, --hang-timeout {HANG_S}", outcomes)
    assert health.seen["/health/live"] == {200}


def test_a_scheduler_that_is_stopped_for_a_while(survived: Survived) -> None:
    """It is not replaced before its time, nothing is lost, and health says so meanwhile."""
    with scene(hang_s=LONG_S) as house:
        pid = house.pid("-m scheduler")

        def strike(talks: list[Talk]) -> None:
            os.kill(pid, signal.SIGSTOP)
            try:
                house.server.until(lambda: house.server.get("/health/ready").status == 503, 30)
                assert house.server.get("/health/progress").status == 503
                assert house.server.get("/health/live").status == 200
                refused = house.server.post("/generate", {"inputs": "a"})
                assert refused.status == 503
                assert "retry-after" in refused.headers
            finally:
                os.kill(pid, signal.SIGCONT)

        outcomes = together(house.server, KINDS, strike)
        house.settle()
        survived("kill -STOP of the scheduler, later -CONT", outcomes)
        assert house.pid("-m scheduler") == pid
