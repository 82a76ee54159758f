"""The short form of ``tests/chaos``: worker, scheduler, connections die, and nobody notices."""

import os
import signal
from collections.abc import Callable

from tests.chaos.kinds import FEW, MEMORY
from tests.chaos.returning import Returning
from tests.chaos.scene import Scene, scene
from tests.chaos.table import truth_of
from tests.chaos.talk import Talk, together

EVERY = 15
"""Events between two losses of a connection."""


def killer(made: Scene, what: str) -> Callable[[list[Talk]], None]:
    return lambda _: os.kill(made.pid(what), signal.SIGKILL)


def test_streams_survive() -> None:
    late: list[Talk] = []

    with scene("--sse-event-ids", "--speculate", "3", frontends=2) as house:
        truth = truth_of(house, FEW)

        def strike(talks: list[Talk]) -> None:
            late.append(Talk(house.server, FEW[0].marked(MEMORY)))
            late[0].wait()

        for fault in (killer(house, "-m worker"), killer(house, "-m scheduler"), strike):
            outcomes = together(house.server, FEW, fault)
            house.settle()
            wrong = [text for outcome in outcomes if (text := truth.differs(outcome))]
            assert not wrong, "\n".join(wrong)
        talks = [Returning(house.server, kind, every=EVERY) for kind in FEW if kind.streams]
        wrong = [text for talk in talks if (text := truth.differs(talk.wait()))]
        assert not wrong, "\n".join(wrong)
        assert all(talk.returns > 1 for talk in talks)
        house.settle()
    assert "no memory was left" in late[0].outcome.error
