"""Running sequences: leases topped up ahead of need, and preemption when nothing is left."""

import pytest

from common.messages import BLOCK_TOKENS, Cancel, Ended
from scheduler.requests import State
from tests.scheduler.harness import EPOCH, House, sequence_id, started


def grants(house: House) -> dict[int, int]:
    """Blocks granted since the last ``forget``, by counter of the sequence."""
    found: dict[int, int] = {}
    for dispatch in house.dispatches():
        for grant in dispatch.grants:
            counter = grant.id & 0xFFFFFFFF
            found[counter] = found.get(counter, 0) + len(grant.blocks)
    return found


def test_leases_are_topped_up_ahead_of_need() -> None:
    house = started()
    sequence = house.submit(1, 16, 200)
    lease = house.parts.replicas.get(0).leases.get(sequence)  # type: ignore[union-attr]
    assert lease is not None
    for _ in range(199):
        house.report(house.token(sequence, 7))
        assert lease.room_tokens >= 2 * BLOCK_TOKENS or len(lease.blocks) == lease.limit
    assert len(lease.blocks) == lease.limit == 14
    held = [b for d in house.dispatches() for n in d.add for b in n.blocks]
    held += [b for d in house.dispatches() for g in d.grants for b in g.blocks]
    assert held == lease.blocks
    assert len(house.dispatches()) <= 8  # not one for every step


def test_grants_of_a_tick_travel_together() -> None:
    house = started(waiting_served_ratio=0.0)
    sequences = [house.submit(counter, 16, 200) for counter in (1, 2, 3)]
    house.forget()
    house.report(*(house.token(s, 7) for s in sequences))
    assert len(house.dispatches()) == 1
    assert set(grants(house)) == {1, 2, 3}


def test_numbers_count_up_and_epochs_are_named() -> None:
    house = started(waiting_served_ratio=0.0)
    for counter in range(1, 5):
        house.submit(counter)
    assert [d.number for d in house.dispatches()] == [1, 2, 3, 4]
    assert {(d.epoch, d.step_tokens) for d in house.dispatches()} == {(77, 256)}


def crowded(priorities: list[int], *, blocks: int, prompt: int = 32) -> tuple[House, list[int]]:
    """Sequences that all run and together want more blocks than there are."""
    house = started(blocks=blocks + 1, waiting_served_ratio=0.0, prefix_caching=False)
    sequences = [
        house.submit(counter, prompt, 100, priority=priority)
        for counter, priority in enumerate(priorities, start=1)
    ]
    assert set(house.added()) == set(sequences)
    house.forget()
    return house, sequences


def advance(house: House, sequences: list[int], steps: int) -> None:
    """Decode everybody that still has room and is not being stopped."""
    replica = house.parts.replicas.get(0)
    assert replica is not None
    for _ in range(steps):
        able = []
        for sequence in sequences:
            record, lease = house.parts.requests.get(sequence), replica.leases.get(sequence)
            if record is not None and lease is not None and record.state is State.DISPATCHED:
                room = lease.capacity - max(record.known_tokens - 1, lease.computed)
                if room > 0 or record.prefill_left:
                    able.append(house.token(sequence, 7))
        house.report(*able)
        house.check()


@pytest.mark.parametrize(
    ("priorities", "victim"),
    [([0, 0, 0], 3), ([0, 1, 0], 2), ([2, 1, 1], 1), ([-1, -1, -2], 2), ([0, 1, 1], 3)],
)
def test_the_newest_of_the_lowest_priority_is_preempted(priorities: list[int], victim: int) -> None:
    house, sequences = crowded(priorities, blocks=12)
    for _ in range(60):
        advance(house, sequences, 1)
        released = [s & 0xFFFFFFFF for d in house.dispatches() for s in d.release]
        if released:
            break
    assert released == [victim]
    assert house.record(sequence_id(victim)).state is State.PREEMPTING
    assert house.metric("millrace_preemptions_total") == 1


def test_a_stop_takes_back_no_grants_but_its_own() -> None:
    house, sequences = crowded([0, 0], blocks=12)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    for sequence in sequences:
        lease = replica.leases.get(sequence)
        assert lease is not None
        replica.grow(house.record(sequence), lease, 1)
    replica.stop(house.record(sequences[1]))
    dispatch = replica.take_dispatch(EPOCH)
    assert dispatch is not None
    assert [grant.id for grant in dispatch.grants] == sequences[:1]
    assert dispatch.release == sequences[1:]


def test_a_new_process_is_told_nothing_that_was_meant_for_the_last_one() -> None:
    house, sequences = crowded([0], blocks=12)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    replica.stop(house.record(sequences[0]))
    house.ready(incarnation=10)
    other = house.submit(2)
    assert [(d.number, d.release) for d in house.dispatches()] == [(1, [])]
    assert house.added() == [other]


def test_blocks_return_only_when_the_release_is_confirmed() -> None:
    house, sequences = crowded([0, 0, 0], blocks=12)
    while not house.metric("millrace_preemptions_total"):
        advance(house, sequences, 1)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    assert replica.leases.pool.available == 0
    advance(house, sequences[:2], 3)
    assert house.metric("millrace_preemptions_total") == 1  # what is on its way is counted
    victim = house.record(sequences[2])
    generated = list(victim.generated)
    assert generated
    house.clock.now += 2.5
    house.forget()
    house.report(released=[sequences[2]], timing=None)
    assert grants(house).keys() == {1, 2}
    assert victim.state is State.QUEUED
    assert house.parts.queue.is_resumed(sequences[2])
    house.report(house.token(sequences[0], 7, finish="length"))
    house.report(house.token(sequences[1], 7, finish="length"))
    (again,) = [n for d in house.dispatches() for n in d.add]
    assert again.spec.id == sequences[2]
    assert again.generated_ids == generated
    assert again.attempt == 0
    assert again.queue_s == 0.0  # until it was first begun


def test_nobody_is_admitted_in_a_tick_that_preempted() -> None:
    house, sequences = crowded([0, 0, 0], blocks=12)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    while replica.leases.pool.available > 1:
        advance(house, sequences, 1)
    waiting = house.submit(51, 1, 1, priority=-5)
    while not house.metric("millrace_preemptions_total"):
        advance(house, sequences, 1)
    assert waiting in house.parts.queue
    house.report(house.token(sequences[0], 7, finish="length"))
    assert waiting not in house.parts.queue


def test_the_preempted_sequence_comes_back_before_new_ones() -> None:
    house, sequences = crowded([0, 0, 0], blocks=12)
    while not house.metric("millrace_preemptions_total"):
        advance(house, sequences, 1)
    house.submit(60, 16, 1)
    house.report(released=[sequences[2]], timing=None)
    house.forget()
    for sequence in sequences[:2]:
        house.report(house.token(sequence, 7, finish="length"))
    assert house.added() == [sequences[2], sequence_id(60)]


def test_no_more_are_preempted_than_have_to_be() -> None:
    """Three are short at once: the newest of them leaves two blocks, and needs none itself."""
    house, sequences = crowded([0, 0, 0, 0], blocks=9, prompt=16)
    while not house.metric("millrace_preemptions_total"):
        advance(house, sequences, 1)
    assert house.dispatches()[-1].release == [sequences[3]]


def test_growth_is_leased_in_advance_after_every_preemption() -> None:
    house, _ = crowded([0], blocks=100)
    record = house.record(sequence_id(1))
    replica = house.parts.replicas.get(0)
    assert replica is not None
    held = []
    for _ in range(5):
        lease = replica.leases.get(record.id)
        assert lease is not None
        held.append(len(lease.blocks))
        house.parts.planner._recovery.preempt(replica, record)
        house.report(released=[record.id], timing=None)
    assert held == [3, 4, 6, 9, 9]  # 2 and a growth of 1, 2, 4, at most 9


def test_a_sequence_alone_runs_to_its_end() -> None:
    house = started(blocks=9, prefix_caching=True)
    sequence = house.submit(1, 28, 100)  # all of the 8 blocks
    for _ in range(99):
        house.report(house.token(sequence, 7))
        house.check()
    house.report(house.token(sequence, 7, finish="length"))
    assert house.metric("millrace_preemptions_total") == 0
    assert house.parts.replicas.get(0).leases.pool.leased == 0  # type: ignore[union-attr]


def test_cancelled_blocks_count_before_anybody_is_preempted() -> None:
    house, sequences = crowded([0, 0, 0], blocks=12)
    replica = house.parts.replicas.get(0)
    assert replica is not None
    while replica.leases.pool.available:
        advance(house, sequences, 1)
    house.from_frontend(Cancel(sequences[0], "client_gone"))
    house.turn()
    advance(house, sequences[1:], 40)
    assert house.metric("millrace_preemptions_total") == 0
    house.report(released=[sequences[0]], timing=None)
    advance(house, sequences[1:], 10)
    assert house.metric("millrace_preemptions_total") == 0
    assert house.said(Ended) == []
