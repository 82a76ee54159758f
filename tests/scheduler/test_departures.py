"""Who leaves is forgotten without any waiting: everything happens in the turn that hears of it.

The clock never moves here, so no timer has any part in it. What is left is the step that the worker
is in, and the way of the messages.
"""

import pytest

from common.messages import Cancel, Progress, SequenceTokens
from tests.scheduler.harness import FRONTEND, House, sequence_id, started


def waiting(house: House) -> int:
    house.submit(1)
    return house.submit(2)


def reading(house: House) -> int:
    sequence = house.submit(2, 300)
    house.report(Progress(SequenceTokens(sequence, 0, 0), 48))
    return sequence


def decoding(house: House) -> int:
    sequence = house.submit(2)
    house.run_to(sequence, 2)
    return sequence


@pytest.mark.parametrize("state", [waiting, reading, decoding])
@pytest.mark.parametrize("how", ["its client leaves", "its front end dies"])
def test_within_one_turn_and_one_report(state, how: str) -> None:
    house = started(max_batch_size=1)
    pool = house.parts.replicas.get(0).leases.pool  # type: ignore[union-attr]
    sequence = state(house)
    first_runs = state is waiting
    began = house.clock.now
    house.forget()
    if how == "its client leaves":
        house.from_frontend(Cancel(sequence, "client_gone"))
    else:
        house.frontend_processes.dead = [100]
    house.turn()
    released = [gone for dispatch in house.dispatches() for gone in dispatch.release]
    assert (sequence in released) == (not first_runs)
    assert sequence not in house.parts.queue
    assert house.parts.requests.live == (first_runs and how == "its client leaves")
    if released:
        house.report(released=released, timing=None)
    assert (pool.leased > 0) == bool(house.parts.requests.live)
    assert house.clock.now == began


def test_whoever_waited_is_admitted_in_the_turn_in_which_the_blocks_come_back() -> None:
    house = started(frontends=2, max_batch_size=1)
    leaver = house.submit(1, frontend=FRONTEND + 1)
    next_one = house.submit(1)
    house.from_frontend(Cancel(leaver, "client_gone"), FRONTEND + 1)
    house.turn()
    house.forget()
    house.report(released=[leaver], timing=None)
    assert house.added() == [next_one] == [sequence_id(1)]
