"""Workers: readiness, the handshake with unknown ones, silence, and lost connections."""

from typing import Any

import pytest

from common.messages import (
    PROTOCOL_VERSION,
    Dispatch,
    Heartbeat,
    Ready,
    Recover,
    Reset,
    Status,
    StepTiming,
)
from common.sockets import encode, worker_identity
from scheduler.replicas import LONGEST_STEPS, PROBE_S, ReplicaState
from scheduler.workers import RESET_RETRY_S
from tests.scheduler.harness import EPOCH, House, sequence_id, started

HANG_S = 20.0
"""What --hang-timeout is by default."""


def state(house: House, replica: int = 0) -> ReplicaState:
    found = house.parts.replicas.get(replica)
    assert found is not None
    return found.state


def resets(house: House) -> list[bytes]:
    return [to for to, m in house.link.worker_sent if isinstance(m, Reset)]


def put(house: House, message: Any, replica: int = 0, incarnation: int = 9) -> None:
    identity = worker_identity(replica, incarnation)
    house.link.worker_inbox.append((identity, encode(message)))
    house.turn()


def test_starting_until_ready() -> None:
    house = House(num_replicas=2)
    assert state(house) is ReplicaState.STARTING
    house.ready(replica=0)
    assert (state(house, 0), state(house, 1)) == (ReplicaState.READY, ReplicaState.STARTING)
    assert house.metric("millrace_replicas_ready") == 1
    house.ready(replica=7)  # a replacement may bring its own number
    assert state(house, 7) is ReplicaState.READY


@pytest.mark.parametrize(
    "ready",
    [Ready(PROTOCOL_VERSION + 1, 0, 9, 1, 100), Ready(PROTOCOL_VERSION, 0, 9, 1, 1),
     Ready(PROTOCOL_VERSION, 0, 9, 1, 1 << 40), Ready(PROTOCOL_VERSION, 0, 10, 1, 100),
     Ready(PROTOCOL_VERSION, 1, 9, 1, 100)],
)  # fmt: skip
def test_a_wrong_ready_is_refused(ready: Ready) -> None:
    house = House()
    put(house, ready)
    assert state(house) is ReplicaState.STARTING


@pytest.mark.parametrize("identity", [b"", b"W0.0.9", b"F00000001", b"W9999.0.%016x" % 1,
                                      b"W0.1.%016x" % 1])  # fmt: skip
def test_a_strange_routing_id_is_a_bad_frame(identity: bytes) -> None:
    house = House()
    house.link.worker_inbox.append((identity, encode(Heartbeat(1, 1, 1))))
    house.turn()
    assert house.metric("millrace_bad_frames_total", socket="dispatch") == 1


def test_an_unknown_worker_is_reset_and_taken_in() -> None:
    house = House()
    house.hello()
    for _ in range(3):
        put(house, Heartbeat(4711, 9, 50))
    assert resets(house) == [worker_identity(0, 9)]  # told once
    house.submit(1)
    house.ready(epoch=EPOCH)
    assert state(house) is ReplicaState.READY
    assert house.added() == [sequence_id(1)]
    assert house.dispatches()[0].number == 1


def test_a_worker_that_does_not_answer_is_told_again() -> None:
    house = House()
    put(house, Heartbeat(4711, 9, 50))
    house.clock.now += RESET_RETRY_S
    put(house, Heartbeat(4711, 9, 50))
    assert len(resets(house)) == 2


def test_ready_to_an_old_epoch_is_reset() -> None:
    house = House()
    house.ready(epoch=4711)
    assert state(house) is ReplicaState.STARTING
    assert len(resets(house)) == 1


def test_a_heartbeat_that_crossed_the_first_dispatch_does_no_harm() -> None:
    house = started()
    house.submit(1)
    put(house, Heartbeat(0, 9, 0))
    assert resets(house) == []
    house.report(house.token(sequence_id(1), 7))
    assert house.record(sequence_id(1)).generated == [7]


def test_what_was_replaced_is_ignored() -> None:
    house = started()
    house.ready(incarnation=10)
    house.submit(1)
    put(house, Heartbeat(EPOCH, 9, 50), incarnation=9)
    put(house, Ready(PROTOCOL_VERSION, 0, 9, 1, 50, EPOCH), incarnation=9)
    assert resets(house) == []
    assert house.said(Recover) == []
    assert house.parts.replicas.get(0).total_blocks == 100  # type: ignore[union-attr]


def test_an_unexpected_ready_begins_anew() -> None:
    """Two Resets may have been on their way: the second drops what was dispatched in between."""
    house = started()
    house.submit(1)
    house.ready(epoch=EPOCH)
    assert house.said(Recover) == [Recover([sequence_id(1)])]
    assert len(resets(house)) == 1
    assert state(house) is ReplicaState.GONE
    house.ready(epoch=EPOCH)
    assert state(house) is ReplicaState.READY
    house.check()


def test_a_worker_that_was_told_to_begin_anew_may_be_told_so_again() -> None:
    house = started()
    for epoch in (4711, EPOCH):
        house.ready(epoch=epoch)
    assert len(resets(house)) == 2


def test_a_worker_that_obeys_another_scheduler_is_lost() -> None:
    house = started()
    house.submit(1)
    put(house, Heartbeat(4711, 9, 3))
    assert house.said(Recover) == [Recover([sequence_id(1)])]
    assert len(resets(house)) == 1


# --- silence ----------------------------------------------------------------------------------


def seconds(house: House, count: float, *, beats: bool = False) -> None:
    """Let time pass, second by second."""
    for _ in range(int(count)):
        house.hello()
        if beats:
            house.from_worker_beat()
        house.turn(after_s=1.0)


def test_an_idle_worker_without_heartbeat_becomes_suspect_and_recovers() -> None:
    house = started()
    seconds(house, HANG_S / 2)
    assert state(house) is ReplicaState.READY
    seconds(house, 1)
    assert state(house) is ReplicaState.SUSPECT
    assert [r.ready for r in house.said(Status)[-1].replicas] == [False]
    house.submit(1)
    assert house.added() == []
    house.forget()
    house.from_worker_beat()
    house.turn()
    assert state(house) is ReplicaState.READY
    assert [r.ready for r in house.said(Status)[0].replicas] == [True]
    assert house.added() == [sequence_id(1)]


def test_a_busy_worker_has_to_make_progress() -> None:
    house = started()
    house.submit(1)
    seconds(house, HANG_S / 2, beats=True)
    assert state(house) is ReplicaState.READY
    assert house.said(Status)[-1].replicas[0].progress_age_s >= HANG_S / 2 - 1
    seconds(house, 2, beats=True)
    assert state(house) is ReplicaState.SUSPECT
    house.report(house.token(sequence_id(1), 7))
    assert state(house) is ReplicaState.READY


def test_the_deadline_grows_with_the_longest_step() -> None:
    house = started()
    house.submit(1)
    house.report(house.token(sequence_id(1), 7), timing=StepTiming(9, 0, 1.0, 0.1, 0.1, 5.0))
    house.report(house.token(sequence_id(1), 7))  # a short one
    seconds(house, 5 * LONGEST_STEPS / 2 - 1, beats=True)
    assert state(house) is ReplicaState.READY
    seconds(house, 3, beats=True)
    assert state(house) is ReplicaState.SUSPECT
    house.ready(incarnation=10)
    house.submit(2)
    seconds(house, HANG_S / 2 + 2, beats=True)
    assert state(house) is ReplicaState.SUSPECT  # another process's steps do not count


def test_the_deadline_knows_the_longest_step_of_the_warm_up() -> None:
    house = House()
    house.hello()
    house.incarnations[0] = 9
    put(house, Ready(PROTOCOL_VERSION, 0, 9, 1, 101, longest_step_s=4.0))
    house.submit(1)
    seconds(house, 4 * LONGEST_STEPS / 2 - 1, beats=True)
    assert state(house) is ReplicaState.READY
    seconds(house, 3, beats=True)
    assert state(house) is ReplicaState.SUSPECT


def test_a_busy_worker_that_hangs_is_killed_and_its_sequences_recovered() -> None:
    house = started()
    sequence = house.submit(1)
    house.forget()
    seconds(house, HANG_S - 1, beats=True)
    assert (state(house), house.processes.killed) == (ReplicaState.SUSPECT, [])
    seconds(house, 3, beats=True)
    assert (state(house), house.processes.killed) == (ReplicaState.GONE, [1])
    assert house.said(Recover) == [Recover([sequence])]
    assert house.record(sequence).deaths == 1
    assert house.metric("millrace_replicas_hung_total") == 1
    assert house.processes.held == []
    house.ready(incarnation=10)
    assert state(house) is ReplicaState.READY
    house.check()


def test_the_end_of_a_process_is_noticed_at_once() -> None:
    house = started()
    sequence = house.submit(1)
    house.forget()
    house.processes.dead.append(4711)
    house.turn()
    assert state(house) is ReplicaState.READY
    house.processes.dead.append(1)
    house.turn()
    assert state(house) is ReplicaState.GONE
    assert house.said(Recover) == [Recover([sequence])]
    assert house.record(sequence).deaths == 1
    status = house.said(Status)[-1]
    assert not status.replicas[0].ready
    assert house.processes.killed == []
    house.check()


def test_what_a_process_reported_before_its_end_counts() -> None:
    house = started()
    sequence = house.submit(1)
    house.forget()
    house.processes.dead.append(1)
    house.report(house.token(sequence, 7, finish="eos_token"))
    assert state(house) is ReplicaState.GONE
    assert house.said(Recover) == []
    assert house.record(sequence).finish == "eos_token"


@pytest.mark.parametrize("busy", [True, False])
def test_when_the_whole_server_was_halted_nobody_has_been_silent(busy: bool) -> None:
    house = started()
    sequence = house.submit(1) if busy else 0
    house.turn(after_s=1.0)
    house.turn(after_s=10 * HANG_S, halted=True)
    assert house.metric("millrace_replicas_hung_total") == 0
    assert len(house.parts.frontends) == 1
    assert house.parts.replicas.ready == 1
    if busy:
        house.report(house.token(sequence, 7))
        assert house.record(sequence).generated == [7]
    house.turn(after_s=HANG_S + 2)
    assert house.metric("millrace_replicas_hung_total") == 1, "from then on it counts"


def test_an_idle_worker_that_hangs_is_killed_however_long_its_steps_were() -> None:
    house = started()
    last = house.token(house.submit(1), 7, finish="length")
    house.report(last, timing=StepTiming(9, 0, 1.0, 0.1, 0.1, HANG_S))
    seconds(house, HANG_S + 2)
    assert (state(house), house.processes.killed) == (ReplicaState.GONE, [1])


def test_a_suspect_still_gets_releases() -> None:
    house = started()
    sequence = house.submit(1)
    seconds(house, HANG_S / 2 + 2, beats=True)
    house.forget()
    house.parts.intake._endings.cancel(house.record(sequence), "client_gone")
    house.turn()
    assert [d.release for d in house.dispatches() if d.release] == [[sequence]]


def test_a_silent_busy_worker_is_probed_and_found_dead() -> None:
    house = started()
    house.submit(1)
    house.forget()
    seconds(house, 5 * PROBE_S)
    empty = house.dispatches()
    assert 3 <= len(empty) <= 5
    assert all(not (d.add or d.grants or d.release) for d in empty)
    assert [d.number for d in empty] == list(range(2, 2 + len(empty)))
    house.link.unreachable.add(house.identity())
    seconds(house, PROBE_S)
    assert state(house) is ReplicaState.GONE
    assert house.said(Recover) == [Recover([sequence_id(1)])]
    assert house.metric("millrace_unreachable_total", peer="worker") == 1
    house.check()


def test_an_idle_worker_is_not_probed() -> None:
    house = started()
    seconds(house, 5)
    assert house.dispatches() == []


def test_a_lost_connection_may_come_back() -> None:
    house = started()
    house.link.unreachable.add(house.identity())
    sequence = house.submit(1)
    assert state(house) is ReplicaState.GONE
    assert house.record(sequence).deaths == 1
    house.link.unreachable.clear()
    house.from_worker_beat()
    house.turn()
    assert len(resets(house)) == 1
    house.ready(epoch=EPOCH)
    assert state(house) is ReplicaState.READY


# --- groups -----------------------------------------------------------------------------------


def group() -> House:
    house = House()
    house.hello()
    house.incarnations[0] = 9
    put(house, Ready(PROTOCOL_VERSION, 0, 9, 1, 101, followers=[2, 3]))
    return house


def test_a_group_is_spoken_to_through_its_leader() -> None:
    house = group()
    house.submit(1)
    assert house.processes.held == [1, 2, 3]
    assert [to for to, m in house.link.worker_sent if isinstance(m, Dispatch)] == [
        worker_identity(0, 9)
    ]


@pytest.mark.parametrize("pid", [1, 2, 3])
def test_one_lost_process_is_a_lost_group(pid: int) -> None:
    house = group()
    house.submit(1)
    house.processes.dead.append(pid)
    house.turn()
    assert house.said(Recover) == [Recover([sequence_id(1)])]
    assert state(house) is ReplicaState.GONE
    assert set(house.processes.killed) == {1, 2, 3} - {pid}
    assert house.processes.held == []
    put(house, Ready(PROTOCOL_VERSION, 0, 10, 4, 101, followers=[5, 6]), incarnation=10)
    assert state(house) is ReplicaState.READY
    assert house.processes.held == [4, 5, 6]


def test_all_of_a_group_that_hangs_are_killed() -> None:
    house = group()
    house.submit(1)
    house.turn(after_s=house.settings.hang_timeout + 1)
    house.turn()
    assert set(house.processes.killed) == {1, 2, 3}
    assert state(house) is ReplicaState.GONE
