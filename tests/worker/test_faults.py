"""Faults on purpose: how they are written, whom they strike, and that nobody else notices."""

import pytest

from common.errors import StartupError
from tests.worker.driver import CPU, Driver, HistoryModel
from worker.engine import Engine
from worker.faults import Fault, Faults, read

PROMPT = [3, 1, 4, 1, 5, 9]
OTHER = [3, 1, 4, 1, 6]


class HungError(Exception):
    """Stands for a sleep without an end."""


class Struck:
    """Faults whose sleep and exit are noted instead."""

    def __init__(self, *faults: Fault) -> None:
        self.slept: list[float] = []
        self.left: list[int] = []
        self.faults = Faults(faults, sleep=self._sleep, leave=self.left.append)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds > 100:
            raise HungError


def driver(struck: Struck) -> Driver:
    model = HistoryModel()
    made = Driver(model, model.cache(64))
    made.engine = Engine(
        model, model.cache(64), blocks=64, device=CPU, clock=lambda: 0.0, faults=struck.faults
    )
    return made


def test_a_list_of_faults_is_read() -> None:
    faults = read("test-only:exit@17,23; hang@5 ;memory@9;slow=0.5@4,4")
    assert faults is not None
    assert faults._faults == (
        Fault("exit", 0.0, (17, 23)),
        Fault("hang", 0.0, (5,)),
        Fault("memory", 0.0, (9,)),
        Fault("slow", 0.5, (4, 4)),
    )
    assert read("") is None
    assert read(None) is None


@pytest.mark.parametrize(
    "text",
    [
        "exit@17",
        "test-only:",
        "test-only:exit",
        "test-only:exit@",
        "test-only:exit@a",
        "test-only:exit=1@2",
        "test-only:slow@2",
        "test-only:slow=@2",
        "test-only:slow=-1@2",
        "test-only:slow=nan@2",
        "test-only:melt@2",
        "test-only:exit@1;;exit@2",
    ],
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match="debug_faults"):
        read(text)


def test_the_process_is_ended_in_every_step_of_a_marked_prompt() -> None:
    struck = Struck(Fault("exit", 0.0, (1, 5)))
    run = driver(struck)
    run.add(0, OTHER, 5)
    run.run()
    assert struck.left == []
    run.add(1, PROMPT, 3)
    run.run()
    assert struck.left == [1, 1, 1]


def test_a_run_may_begin_again_inside_itself() -> None:
    struck = Struck(Fault("slow", 2.0, (1, 1, 5)))
    run = driver(struck)
    run.add(0, [1, 1, 1, 5], 1)
    run.add(1, [1, 5, 1, 1], 1)
    run.run()
    assert struck.slept == [2.0]


def test_a_hang_never_ends() -> None:
    struck = Struck(Fault("hang", 0.0, (9,)))
    with pytest.raises(HungError):
        struck.faults._hang()
    assert len(struck.slept) == 1


def test_memory_that_is_missing_fails_one_sequence() -> None:
    struck = Struck(Fault("memory", 0.0, (5, 9)))
    run = driver(struck)
    run.add(0, OTHER, 6)
    run.add(1, PROMPT, 6)
    run.run()
    assert run.records[1].error == "no memory was left for a step of this request"
    assert run.records[0].ids == run.model.continuation(OTHER, 6)
    assert run.engine.held == 0


def test_a_slow_prompt_slows_its_steps_once_each() -> None:
    struck = Struck(Fault("slow", 0.25, (3, 1)), Fault("slow", 0.5, (6,)))
    run = driver(struck)
    run.add(0, PROMPT, 3)
    run.add(1, OTHER, 1)
    run.run()
    assert struck.slept == [0.25, 0.5, 0.25, 0.25]
    assert run.records[0].ids == run.model.continuation(PROMPT, 3)
