"""Lost workers, resubmission, and scheduler restarts: nobody loses or repeats a token."""

import pytest

from common.messages import (
    Accepted,
    Cancel,
    Delivered,
    Ended,
    Recover,
    Rejected,
    Replay,
    Status,
    Submit,
)
from scheduler.recovery import RESUBMIT_LIMIT_S
from scheduler.requests import State
from scheduler.standby import PATIENCE_S
from tests.scheduler.harness import FRONTEND, House, sequence_id, spec, started


def lost(count: int = 2, **changes: object) -> House:
    """A replica died with ``count`` sequences that have three tokens each."""
    house = started(waiting_served_ratio=0.0, **changes)  # type: ignore[arg-type]
    for counter in range(1, count + 1):
        house.submit(counter)
        house.run_to(sequence_id(counter), 3)
    house.forget()
    house.ready(incarnation=10)
    return house


def again(counter: int, attempt: int, ids: list[int]) -> Submit:
    return Submit(spec(counter), attempt, ids)


def test_a_new_incarnation_means_the_old_one_is_lost() -> None:
    house = lost()
    assert house.said(Recover) == [Recover([sequence_id(1), sequence_id(2)])]
    assert house.record(sequence_id(1)).state is State.RECOVERING
    assert house.added() == []
    assert house.metric("millrace_recovered_sequences_total") == 2
    assert house.metric("millrace_replicas_lost_total") == 1
    house.check()


@pytest.mark.parametrize(("count", "told"), [(0, "is gone"), (2, "is lost")])
def test_the_log_calls_lost_only_what_had_work(
    count: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is stopped ends its workers before its scheduler: that is no loss."""
    caplog.set_level("INFO")
    lost(count)
    levels = [record.levelname for record in caplog.records if told in record.getMessage()]
    assert levels == ["WARNING" if count else "INFO"]
    assert ("is lost" in caplog.text) == (count > 0)


def test_resubmitted_sequences_go_on_where_their_client_is() -> None:
    house = lost()
    house.from_frontend(again(1, 1, [7, 7]))
    house.turn()
    assert house.said(Accepted) == [Accepted(sequence_id(1), 1)]
    (new,) = [n for d in house.dispatches() for n in d.add]
    assert (new.spec.id, new.attempt, new.generated_ids) == (sequence_id(1), 1, [7, 7])
    assert house.dispatches()[0].number == 1
    house.report(house.token(sequence_id(1), 8))
    assert house.record(sequence_id(1)).generated == [7, 7, 8]
    assert [item.index for item in house.record(sequence_id(1)).items_from(0)] == [2]


def test_resubmitted_sequences_are_never_overloaded() -> None:
    house = lost(max_concurrent_requests=2)
    house.submit(9)
    house.turn(after_s=PATIENCE_S)
    assert [m.reason for m in house.said(Rejected)] == ["overloaded"]
    for counter in (1, 2):
        house.from_frontend(again(counter, 1, [7]))
    house.turn()
    assert len(house.said(Accepted)) == 2
    assert house.added() == [sequence_id(1), sequence_id(2)]


def test_resubmitted_sequences_go_before_waiting_ones() -> None:
    house = started(max_batch_size=2, waiting_served_ratio=0.0)
    for counter in (1, 2, 3):
        house.submit(counter)
    house.parts.workers.unreachable(house.identity(), house.clock())
    for counter in (2, 1):
        house.from_frontend(again(counter, 1, []))
    house.turn()
    house.forget()
    house.ready(incarnation=10)
    assert house.added() == [sequence_id(1), sequence_id(2)]


def test_who_does_not_resubmit_fails() -> None:
    house = lost(1)
    record = house.record(sequence_id(1))
    for _ in range(int(RESUBMIT_LIMIT_S) - 1):
        house.from_frontend(Submit(spec(5), -1))  # a sign of life that changes nothing
        house.turn(after_s=1.0)
    assert house.record(sequence_id(1)) is record
    house.turn(after_s=1.0)
    (ended,) = house.said(Ended)
    assert (ended.id, ended.reason) == (sequence_id(1), "failed")
    assert record.state is State.ENDED


def test_who_was_handed_in_again_is_awaited_no_longer() -> None:
    house = lost(1)
    house.from_frontend(again(1, 1, [7, 7, 7]))
    house.turn()
    for _ in range(int(RESUBMIT_LIMIT_S) + 1):
        house.from_frontend(Submit(spec(5), -1))  # a sign of life that changes nothing
        house.clock.now += 1.0
        house.report(house.token(sequence_id(1), 7))
    assert house.record(sequence_id(1)).state is State.DISPATCHED


def test_old_incarnations_attempts_and_epochs_are_ignored() -> None:
    house = lost(1)
    house.from_frontend(again(1, 1, [7, 7, 7]))
    house.turn()
    sequence = sequence_id(1)
    stale = house.token(sequence, 9)
    house.report(stale, incarnation=9)
    assert house.record(sequence).generated == [7, 7, 7]
    old_attempt = house.token(sequence, 9)
    old_attempt = type(old_attempt)(
        type(old_attempt.tokens)(sequence, 0, 3, [9], [0.0]), old_attempt.computed_tokens
    )
    house.report(old_attempt)
    assert house.record(sequence).generated == [7, 7, 7]
    assert house.metric("millrace_wasted_tokens_total") == 1
    house.report(house.token(sequence, 9), epoch=5)
    assert house.record(sequence).generated == [7, 7, 7]


@pytest.mark.parametrize("message", [Cancel(sequence_id(1), "client_gone"),
                                     Delivered(sequence_id(1), success=True)])  # fmt: skip
def test_a_recovering_sequence_may_be_let_go(message: Cancel | Delivered) -> None:
    house = lost(1)
    house.from_frontend(message)
    house.turn()
    assert len(house.parts.requests) == 0
    assert house.parts.requests.live == 0


def test_cancelled_and_delivered_ones_are_not_recovered() -> None:
    house = started(waiting_served_ratio=0.0)
    for counter in (1, 2, 3):
        house.submit(counter)
    house.from_frontend(Cancel(sequence_id(1), "client_gone"))
    house.from_frontend(Delivered(sequence_id(2), success=True))
    house.turn()
    house.ready(incarnation=10)
    assert house.said(Recover) == [Recover([sequence_id(3)])]
    assert house.ended() == {"client_gone": 1, "delivered": 1}


def test_what_is_delivered_while_its_worker_lets_go_is_not_queued_again() -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 4)
    house.from_frontend(again(1, 1, [7, 7]))
    house.turn()
    house.from_frontend(Delivered(sequence, success=True))
    house.turn()
    house.report(released=[sequence], timing=None)
    assert house.ended() == {"delivered": 1}
    assert len(house.parts.queue) == 0
    house.check()


def test_resubmission_of_a_running_sequence_replaces_it() -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 4)
    house.forget()
    house.from_frontend(again(1, 1, [7, 7]))
    house.turn()
    assert house.said(Accepted) == [Accepted(sequence, 1)]
    house.from_frontend(again(1, 2, [7]))
    house.turn()
    assert [dispatch.release for dispatch in house.dispatches()] == [[sequence]]
    assert house.record(sequence).state is State.PREEMPTING
    house.report(released=[sequence], timing=None)
    (new,) = house.dispatches()[-1].add
    assert (new.attempt, new.generated_ids) == (2, [7])
    assert house.metric("millrace_preemptions_total") == 0


def test_resubmission_of_a_cancelled_sequence_is_not_accepted() -> None:
    house = started()
    sequence = house.submit(1)
    house.from_frontend(Cancel(sequence, "client_gone"))
    house.forget()
    house.from_frontend(again(1, 1, []))
    house.turn()
    assert house.said(Accepted) == []
    house.report(released=[sequence], timing=None)
    assert house.ended() == {"client_gone": 1}


def test_resubmission_of_a_waiting_sequence_replaces_it() -> None:
    house = started(max_batch_size=1)
    house.submit(1)
    waiting = house.submit(2)
    house.forget()
    house.from_frontend(again(2, 1, [7]))
    house.turn()
    assert house.said(Accepted) == [Accepted(waiting, 1)]
    house.report(house.token(sequence_id(1), 8, finish="eos_token"))
    (new,) = house.dispatches()[-1].add
    assert (new.spec.id, new.attempt, new.generated_ids) == (waiting, 1, [7])
    assert len(house.parts.queue) == 0


def test_resubmission_of_a_finished_sequence_is_answered_from_the_record() -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 4)
    house.report(house.token(sequence, 8, finish="eos_token"))
    house.forget()
    house.from_frontend(again(1, 1, [7, 7]))
    house.turn()
    (replay,) = house.said(Replay)
    assert [i for item in replay.items for i in item.ids] == [7, 7, 8]
    assert {item.attempt for item in replay.items} == {1}
    assert replay.items[-1].finish == "eos_token"
    house.forget()
    house.from_frontend(again(1, 2, [1, 2]))  # not what we know: computed anew
    house.turn()
    assert house.added() == [sequence]
    house.report(house.token(sequence, 9))
    house.forget()
    house.turn(after_s=4.0)
    assert house.said(Replay) == []  # it is not finished any more


def test_what_is_computed_anew_ends_by_its_new_end() -> None:
    house = started(max_batch_size=1)
    sequence = house.submit(1)
    house.report(house.token(sequence, 8, finish="eos_token"))
    house.submit(2)
    house.from_frontend(again(1, 1, [9]))
    house.turn()
    assert house.record(sequence).state is State.QUEUED
    house.from_frontend(Cancel(sequence, "client_gone"))
    house.turn()
    assert house.ended() == {"client_gone": 1}


def test_what_is_known_by_ids_alone_is_computed_anew_for_who_asks_for_it() -> None:
    """Their log-probabilities died with another scheduler."""
    house = started()
    sequence = house.submit(1, attempt=1, generated_ids=[7, 7, 7])
    house.report(house.token(sequence, 8, finish="eos_token"))
    house.forget()
    house.from_frontend(again(1, 2, [7]))
    house.turn()
    assert house.added() == [sequence]


@pytest.mark.parametrize(
    ("ids", "finish"), [([7] * 40, "length"), ([7, 9], "eos_token"), ([7], "")]
)
def test_a_new_scheduler_learns_sequences_from_front_ends(ids: list[int], finish: str) -> None:
    house = started(max_concurrent_requests=0)
    sequence = house.submit(1, attempt=3, generated_ids=ids, stop_token_ids=[9])
    assert house.said(Accepted) == [Accepted(sequence, 3)]
    if finish:
        (replay,) = house.said(Replay)
        assert (replay.items[0].index, replay.items[0].finish) == (len(ids), finish)
        assert house.added() == []
    else:
        assert house.added() == [sequence]


def test_other_replicas_take_over() -> None:
    house = started(replicas=2)
    house.submit(1)
    assert house.added(0) == [sequence_id(1)]
    house.link.unreachable.add(house.identity(0))
    house.from_frontend(Cancel(sequence_id(99), "client_gone"))
    house.turn()
    for _ in range(30):
        house.from_worker_beat(1)
        house.turn(after_s=0.1)
    assert house.said(Recover) == [Recover([sequence_id(1)])]
    house.from_frontend(again(1, 1, []))
    house.turn()
    assert house.added(1) == [sequence_id(1)]
    status = house.said(Status)[-1]
    assert [r.ready for r in status.replicas] == [False, True]
    assert sequence_id(1) >> 32 == FRONTEND
