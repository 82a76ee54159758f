"""Streams that are kept without their clients take up so much memory, and no more."""

import pytest

from common.messages import Delivered
from scheduler.blocks import blocks_for
from scheduler.requests import State
from scheduler.streams import MOST_BYTES, TOKEN_BYTES
from tests.scheduler.kept import house, keep, leave, resume, take_up


def test_the_oldest_makes_room_for_the_newest() -> None:
    made = house(sse_resume_streams=2)
    sequences = [made.submit(i, keep=keep(ticket=f"{i:032x}")) for i in range(1, 4)]
    for sequence in sequences:
        leave(made, sequence)
    states = [made.record(sequence).state for sequence in sequences]
    assert states == [State.CANCELLING, State.DISPATCHED, State.DISPATCHED]


def test_what_would_take_too_much_memory_is_not_kept() -> None:
    made = house()
    most = MOST_BYTES // 100
    sequence = made.submit(1, 20, most, keep=keep())
    assert made.parts.requests.get(sequence) is None or not made.record(sequence).ticket
    assert resume(made).runs == []


def test_a_stream_that_is_taken_up_takes_no_more_memory_than_before() -> None:
    made = house(blocks=2 * blocks_for(MOST_BYTES // TOKEN_BYTES))
    old = made.submit(1, 20, int(0.6 * MOST_BYTES / TOKEN_BYTES), keep=keep())
    leave(made, old)
    take_up(made, 9, resume(made).runs[0])
    assert resume(made).runs


@pytest.mark.parametrize("fits_alone", [False, True])
def test_a_stream_makes_no_room_for_its_own_next_run(fits_alone: bool) -> None:
    most = MOST_BYTES // TOKEN_BYTES
    made = house(blocks=2 * blocks_for(most))
    first = made.submit(1, keep=keep(0, 2))
    made.report(made.token(first, 7, finish="length"))
    made.from_frontend(Delivered(first, success=True))
    made.turn()
    assert made.metric("millrace_kept_streams") == 1, "all that is known of it is over"
    made.submit(2, 20, most - 30 * fits_alone, keep=keep(1, 2))
    assert resume(made).runs == []
    # Nothing is left in the account: there is room for what takes nearly all of it.
    third = made.submit(3, 20, int(most * 0.99), keep=keep(ticket="1" * 32))
    assert resume(made, ticket="1" * 32).runs
    # And nobody's room is needed once its client is gone.
    leave(made, third)
    made.submit(4, 20, int(most * 0.99), keep=keep(ticket="2" * 32))
    assert resume(made, ticket="2" * 32).runs
    assert resume(made, ticket="1" * 32).runs == []


def test_what_is_left_of_a_stream_that_was_forgotten_is_no_part_of_its_successor() -> None:
    most = MOST_BYTES // TOKEN_BYTES
    made = house(blocks=2 * blocks_for(most), max_concurrent_requests=3)
    first = made.submit(1, keep=keep(0, 3))
    made.submit(2, 20, most, keep=keep(1, 3))
    made.submit(3, keep=keep(2, 3))
    leave(made, first)
    assert made.record(first).state is State.CANCELLING, "nobody could come back for it"
