"""A scheduler that gives no sign of life is killed; nobody else is."""

import subprocess
from collections.abc import Iterator

import pytest

from launcher.watchdog import TICK, Watchdog
from tests.processes import started

HANG_S = 20.0
TICK_S = 5.0


class House:
    """A process that stands for the scheduler, and supervisord's view of it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.now = 100.0
        self.beat: int | None = 1
        self.watchdog = Watchdog(lambda: self.beat, HANG_S, lambda: self.now)
        self.tell("RUNNING")

    def tell(self, state: str, name: str = "scheduler") -> None:
        fields = {"processname": name, "pid": str(self.process.pid)}
        self.watchdog.see(f"PROCESS_STATE_{state}", fields)

    def tick(self, times: int = 1, *, after_s: float = TICK_S, beats: bool = False) -> None:
        for _ in range(times):
            self.now += after_s
            if beats:
                self.beat = (self.beat or 0) + 1
            self.watchdog.see(TICK, {})

    def lives(self) -> bool:
        try:
            return self.process.wait(0.2) is None
        except subprocess.TimeoutExpired:
            return True


@pytest.fixture
def house() -> Iterator[House]:
    with started(["sleep", "60"]) as process:
        yield House(process)


def test_who_is_silent_for_long_is_killed_and_who_is_not_is_left_alone(house: House) -> None:
    house.tick(20, beats=True)
    house.tick(3)
    assert house.lives()
    house.tick()
    assert house.process.wait(10) == -9


def test_one_that_began_before_the_listener_is_watched(house: House) -> None:
    house.watchdog = Watchdog(lambda: house.beat, HANG_S, lambda: house.now)
    house.watchdog.begin(house.process.pid)
    house.tick(2, beats=True)
    house.tick(4)
    assert house.process.wait(10) == -9


def test_nobody_is_killed_for_our_own_sleep(house: House) -> None:
    house.tick(beats=True)
    house.tick(2, after_s=3600.0)
    assert house.lives()
    house.tick(2, after_s=3600.0)
    assert house.process.wait(10) == -9


def test_one_tick_of_silence_is_never_enough(house: House) -> None:
    house.watchdog = Watchdog(lambda: house.beat, 2.0, lambda: house.now)
    house.tell("RUNNING")
    house.tick(beats=True)
    house.tick(after_s=3600.0)
    assert house.lives()
    house.tick()
    assert house.process.wait(10) == -9


@pytest.mark.parametrize("state", ["STOPPING", "EXITED", "BACKOFF"])
def test_one_that_ends_or_is_stopped_is_not_watched(house: House, state: str) -> None:
    house.tell(state)
    house.tick(10)
    assert house.lives()


def test_what_others_do_changes_nothing(house: House) -> None:
    house.tell("EXITED", "worker_0")
    house.tick(5)
    assert house.process.wait(10) == -9


def test_without_any_sign_so_far_nobody_knows(house: House) -> None:
    house.beat = None
    house.tick(10)
    assert house.lives()


def test_a_new_one_gets_its_time_anew(house: House) -> None:
    house.tick(3)
    house.tell("EXITED")
    house.tell("RUNNING")
    house.tick(3)
    assert house.lives()
