"""Clients that lose their connections and come back: whoever answers them, nothing is lost."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Survived
from tests.chaos.kinds import KINDS
from tests.chaos.returning import Returning
from tests.chaos.scene import Scene, scene
from tests.chaos.talk import Outcome

STREAMS = [kind for kind in KINDS if kind.streams]
EVERY = (3, 20)
"""Events between two losses."""
GRACE_S = 8


@pytest.fixture(scope="module")
def house() -> Iterator[Scene]:
    grace = ("--sse-event-ids", "--sse-resume-grace", str(GRACE_S))
    with scene(*grace, frontends=2) as made:
        yield made


def coming_back(made: Scene, every: int) -> list[Returning]:
    return [Returning(made.server, kind, every=every) for kind in STREAMS]


def under_way(talks: list[Returning]) -> bool:
    return 2 * sum(talk.received >= 4 for talk in talks) >= len(talks)


def outcomes_of(talks: list[Returning]) -> list[Outcome]:
    return [talk.wait() for talk in talks]


@pytest.mark.parametrize("every", EVERY)
def test_connections_that_are_lost(house: Scene, survived: Survived, every: int) -> None:
    talks = coming_back(house, every)
    outcomes = outcomes_of(talks)
    house.settle()
    returns = sum(talk.returns for talk in talks)
    survived(f"{returns} connections lost and resumed", outcomes)
    assert returns > len(talks)
    assert house.metric("millrace_resumed_sequences_total") > 0


def test_front_ends_that_are_killed(house: Scene, survived: Survived) -> None:
    talks = coming_back(house, 0)
    for _ in range(2):
        house.server.until(lambda: under_way(talks), 60)
        house.server.until(lambda: len(house.frontends) == 2, 60)
        os.kill(house.frontends[0], signal.SIGKILL)
    outcomes = outcomes_of(talks)
    house.settle()
    returns = sum(talk.returns for talk in talks)
    survived(f"kill -9 of 2 front ends, {returns} streams resumed", outcomes)
    assert returns > 0


def test_a_worker_and_a_front_end(house: Scene, survived: Survived) -> None:
    talks = coming_back(house, 20)
    house.server.until(lambda: under_way(talks), 60)
    os.kill(house.pid("-m worker"), signal.SIGKILL)
    os.kill(house.frontends[1], signal.SIGKILL)
    outcomes = outcomes_of(talks)
    house.settle()
    survived("kill -9 of the worker and a front end, resumed", outcomes)


def test_clients_that_do_not_come_back(house: Scene) -> None:
    wasted = house.metric("millrace_wasted_tokens_total")
    talks = [Returning(house.server, kind, every=0) for kind in STREAMS[:4]]
    house.server.until(lambda: under_way(talks), 60)
    for talk in talks:
        talk.leave()
    house.server.until(lambda: house.metric("millrace_kept_streams") == len(talks), 10)
    house.server.until(lambda: house.metric("millrace_kept_streams") == 0, GRACE_S + 10)
    house.settle()
    assert house.metric("millrace_wasted_tokens_total") > wasted
