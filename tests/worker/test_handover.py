"""Things from threads, and the descriptor that tells of them."""

import select
import threading

import pytest

from worker.handover import Handover


@pytest.fixture
def handover():
    made = Handover()
    yield made
    made.close()


def readable(handover) -> bool:
    return bool(select.select([handover.fd], [], [], 0)[0])


def test_the_descriptor_is_readable_exactly_while_there_is_something(handover):
    assert handover.take() == []
    assert not readable(handover)
    handover.give(1)
    handover.give(2)
    assert readable(handover)
    assert handover.take() == [1, 2]
    assert not readable(handover)
    handover.give(3)
    assert readable(handover)
    assert handover.take() == [3]


def test_nothing_is_lost_between_threads(handover):
    givers = [
        threading.Thread(target=lambda n=n: [handover.give((n, k)) for k in range(300)])
        for n in range(3)
    ]
    for giver in givers:
        giver.start()
    taken = []
    while len(taken) < 900:
        assert select.select([handover.fd], [], [], 10)[0]
        taken += handover.take()
    for giver in givers:
        giver.join()
    assert not readable(handover)
    assert [k for n, k in taken if n == 1] == list(range(300))
