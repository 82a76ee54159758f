"""Sequences under suspicion: alone after two deaths, given up after the third, or absolved."""

from common.messages import Ended, Recover, Retire, Submit
from scheduler.requests import CLEARING_TOKENS, State
from tests.scheduler.harness import House, sequence_id, spec, started


def die(house: House, incarnation: int, replica: int = 0) -> None:
    """The replica's process dies; a new one takes its place, and the front end resubmits."""
    house.forget()
    house.ready(incarnation=incarnation, replica=replica)
    for recover in house.said(Recover):
        for sequence in recover.ids:
            record = house.record(sequence)
            message = Submit(spec(sequence & 0xFFFF), record.attempt + 1, list(record.generated))
            house.from_frontend(message)
    house.turn()


def twice_bereaved(count: int) -> House:
    house = started(waiting_served_ratio=0.0)
    for counter in range(1, count + 1):
        house.submit(counter)
    die(house, 10)
    assert len(house.added()) == count
    die(house, 11)
    return house


def running(house: House, replica: int = 0) -> list[int]:
    found = house.parts.replicas.get(replica)
    assert found is not None
    return list(found.running)


def test_one_death_makes_nobody_a_suspect() -> None:
    house = started(waiting_served_ratio=0.0)
    house.submit(1)
    house.submit(2)
    die(house, 10)
    assert running(house) == [sequence_id(1), sequence_id(2)]
    assert not house.record(sequence_id(1)).is_suspect


def test_a_death_is_not_forgotten_for_what_comes_between_it_and_the_next() -> None:
    house = started(waiting_served_ratio=0.0)
    sequence = house.submit(1)
    die(house, 10)
    house.run_to(sequence, CLEARING_TOKENS + 1)
    die(house, 11)
    assert house.record(sequence).is_suspect


def test_after_two_deaths_each_runs_alone() -> None:
    house = twice_bereaved(2)
    first, second = sequence_id(1), sequence_id(2)
    assert running(house) == [first]
    house.submit(3)  # a newcomer waits for both
    assert running(house) == [first]
    for _ in range(CLEARING_TOKENS):
        assert running(house) == [first]
        assert house.record(first).is_suspect
        house.report(house.token(first, 7))
    assert not house.record(first).is_suspect
    # the second wants the replica for itself: the first makes room
    assert house.record(first).state is State.PREEMPTING
    house.report(released=[first])
    assert running(house) == [second]
    for _ in range(CLEARING_TOKENS):
        house.report(house.token(second, 7))
    assert sorted(running(house)) == [first, second, sequence_id(3)]
    house.check()


def test_a_suspect_that_kills_again_fails_alone() -> None:
    house = twice_bereaved(2)
    poison, innocent = sequence_id(1), sequence_id(2)
    die(house, 12)
    (ended,) = house.said(Ended)
    assert (ended.id, ended.reason) == (poison, "failed")
    assert ended.message.startswith("the worker died 3 times while it ran, the last time alone")
    assert house.parts.requests.get(poison) is None
    assert house.metric("millrace_poisonous_sequences_total") == 1
    assert running(house) == [innocent]
    for _ in range(CLEARING_TOKENS):
        house.report(house.token(innocent, 7))
    house.report(house.token(innocent, 7, finish="eos_token"))
    assert house.record(innocent).state is State.FINISHED
    house.check()


def test_a_cancelled_suspect_frees_its_replica() -> None:
    house = twice_bereaved(2)
    house.parts.intake._endings.cancel(house.record(sequence_id(1)), "client_gone")
    house.turn()
    house.report(released=[sequence_id(1)])
    assert running(house) == [sequence_id(2)]
    house.check()


def test_a_suspect_takes_the_empty_replica_and_leaves_the_others_alone() -> None:
    house = House(num_replicas=2, waiting_served_ratio=0.0)
    house.hello()
    house.ready(replica=0, incarnation=9)
    house.submit(1)
    house.ready(replica=1, incarnation=9)
    house.submit(2)
    assert (running(house, 0), running(house, 1)) == ([sequence_id(1)], [sequence_id(2)])
    die(house, 10)
    assert running(house, 0) == [sequence_id(1)]
    die(house, 11)
    assert house.record(sequence_id(1)).is_suspect
    assert (running(house, 0), running(house, 1)) == ([sequence_id(1)], [sequence_id(2)])
    house.submit(3)
    assert running(house, 1) == [sequence_id(2), sequence_id(3)]


def test_a_suspect_empties_a_replica_that_can_hold_it() -> None:
    house = House(num_replicas=2, waiting_served_ratio=0.0)
    house.hello()
    house.ready(11, replica=0)
    house.ready(101, replica=1)
    first, second = house.submit(1, 20, 300), house.submit(2, 20, 300)
    die(house, 10, replica=1)
    die(house, 11, replica=1)
    house.turn()
    assert running(house, 1) == [first]
    assert house.record(first).state is State.DISPATCHED  # another suspect takes nothing from it
    for _ in range(CLEARING_TOKENS):
        house.report(house.token(first, 7), replica=1)
    assert house.record(first).state is State.PREEMPTING
    house.report(released=[first], replica=1)
    assert (running(house, 0), running(house, 1)) == ([], [second])


def without_room_for_a_suspect() -> tuple[House, int]:
    """Two replicas run two sequences and one; a suspect of a third one that died waits."""
    house = started(replicas=3, waiting_served_ratio=0.0)
    for counter in range(1, 5):
        house.submit(counter)
    suspect = house.added(2)[0]
    die(house, 20, replica=2)
    house.forget()
    house.parts.workers.unreachable(house.identity(2), house.clock.now)
    return house, suspect


def states(house: House, *counters: int) -> list[State]:
    return [house.record(sequence_id(counter)).state for counter in counters]


def test_the_least_busy_replica_is_emptied_for_a_suspect_and_no_other() -> None:
    house, suspect = without_room_for_a_suspect()
    house.from_frontend(Submit(spec(3), 2))
    house.turn()
    assert states(house, 1, 2, 3, 4) == [
        State.DISPATCHED,
        State.PREEMPTING,
        State.QUEUED,
        State.DISPATCHED,
    ]
    house.report(house.token(sequence_id(4), 7, finish="length"))
    assert states(house, 1) == [State.DISPATCHED]
    house.report(released=[sequence_id(2)], replica=1)
    assert running(house, 1) == [suspect]


def test_a_replica_that_is_about_to_be_replaced_is_not_emptied_for_a_suspect() -> None:
    house, suspect = without_room_for_a_suspect()
    house.from_frontend(Retire(5, 1), 77)
    house.turn()
    house.from_frontend(Submit(spec(3), 2))
    house.turn()
    assert states(house, 1, 2, 4) == [State.DISPATCHED, State.PREEMPTING, State.DISPATCHED]
    house.report(released=[sequence_id(2)], replica=1)
    assert states(house, 1, 4) == [State.PREEMPTING] * 2
    house.report(released=[sequence_id(1), sequence_id(4)])
    assert running(house, 0) == [suspect]


def test_a_replica_that_is_told_to_begin_anew_did_not_die() -> None:
    house = started(waiting_served_ratio=0.0)
    sequence = house.submit(1)
    house.report(house.token(sequence, 7), epoch=4711)  # it obeys another scheduler
    assert house.said(Recover) == [Recover([sequence])]
    assert house.record(sequence).deaths == 0


def test_a_suspect_is_not_condemned_for_what_was_no_death() -> None:
    house = twice_bereaved(1)
    sequence = sequence_id(1)
    house.forget()
    house.report(house.token(sequence, 7), epoch=4711)
    assert house.said(Ended) == []
    assert house.said(Recover) == [Recover([sequence])]
