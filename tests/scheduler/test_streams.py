"""Streams without their clients: they go on, are taken up by other front ends, or are given up."""

import pytest

from common.messages import (
    Delivered,
    Ended,
    FrontendGone,
    Keep,
    Missing,
    Recover,
    Rejected,
    Replay,
    Submit,
)
from scheduler.requests import State
from scheduler.standby import PATIENCE_S
from tests.scheduler.harness import FRONTEND, sequence_id, spec
from tests.scheduler.kept import GRACE_S, MEMO, OTHER, TICKET, house, keep, leave, resume, take_up


def test_without_a_ticket_a_client_that_leaves_is_gone() -> None:
    made = house()
    sequence = made.submit(1)
    leave(made, sequence)
    assert made.record(sequence).state is State.CANCELLING


def test_an_orphan_goes_on_and_is_taken_up_by_another_front_end() -> None:
    made = house()
    old = made.submit(1, keep=keep())
    made.run_to(old, 3)
    leave(made, old)
    assert made.record(old).state is State.DISPATCHED
    made.run_to(old, 5)
    found = resume(made)
    assert found.memo == MEMO
    assert [run.tokens.ids for run in found.runs] == [[7] * 5]
    made.run_to(old, 6)  # between the answer and the submission
    made.forget()
    new = take_up(made, 9, found.runs[0])
    assert made.record(old).reason == "moved"
    assert [item.ids for m in made.said(Replay, OTHER) for item in m.items] == [[7]]
    made.report(released=[old])
    assert made.parts.requests.get(old) is None
    made.turn()
    assert made.record(new).state is State.DISPATCHED
    assert made.record(new).generated == [7] * 6
    made.report(made.token(new, 7, finish="eos_token"))
    made.from_frontend(Delivered(new, success=True), OTHER)
    made.turn()
    assert made.ended() == {"moved": 1, "eos_token": 1}
    assert made.metric("millrace_resumed_sequences_total") == 1
    assert made.metric("tgi_request_input_length_count") == 1
    made.check()


def test_nobody_comes_back() -> None:
    made = house()
    sequence = made.submit(1, keep=keep())
    made.run_to(sequence, 2)
    leave(made, sequence)
    made.run_to(sequence, 4)
    assert made.metric("millrace_kept_streams") == 1
    made.turn(after_s=GRACE_S)
    assert made.record(sequence).state is State.CANCELLING
    made.report(released=[sequence])
    assert made.ended() == {"client_gone": 1}
    assert made.metric("millrace_wasted_tokens_total") == 2
    assert made.metric("millrace_kept_streams") == 0
    assert resume(made).runs == []
    made.check()


def test_the_end_of_a_stream_is_kept_for_a_while() -> None:
    made = house()
    sequence = made.submit(1, keep=keep())
    made.run_to(sequence, 2)
    made.report(made.token(sequence, 8, finish="eos_token"))
    made.from_frontend(Delivered(sequence, success=True))
    made.turn()
    assert len(made.parts.requests) == 0
    (run,) = resume(made).runs
    assert (run.tokens.ids, run.tokens.finish) == ([7, 7, 8], "eos_token")
    made.turn(after_s=GRACE_S - 1)
    assert resume(made).runs, "asking begins the grace anew"
    made.turn(after_s=GRACE_S - 1)
    assert resume(made).runs
    made.turn(after_s=GRACE_S)
    assert resume(made).runs == []


def test_only_its_owner_gets_a_stream() -> None:
    made = house()
    sequence = made.submit(1, keep=keep())
    made.submit(9, frontend=OTHER, keep=Keep(TICKET, "somebody else", 0, 1, b"theirs"))
    assert made.record(sequence).state is State.DISPATCHED
    assert resume(made).memo == MEMO
    assert resume(made, owner="somebody else").runs == []
    assert resume(made, owner="größer").runs == []
    assert resume(made, ticket="00" * 16).runs == []
    assert resume(made).runs


def test_a_lost_front_end_leaves_orphans() -> None:
    made = house()
    kept, other = made.submit(1, keep=keep()), made.submit(2)
    made.from_frontend(FrontendGone(100))
    made.turn()
    assert made.record(kept).state is State.DISPATCHED
    assert made.record(other).state is State.CANCELLING
    made.report(made.token(kept, 7), undelivered=[FRONTEND])
    assert made.said(Replay) == [], "nobody is there to hear it"
    assert resume(made).runs[0].tokens.ids == [7]


def test_the_end_of_an_orphan_is_sent_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    made = house(sse_resume_grace=100.0)
    sequence = made.submit(1, keep=keep())
    made.from_frontend(FrontendGone(100))
    made.turn()
    made.report(made.token(sequence, 7, finish="length"))
    for _ in range(80):
        made.turn(after_s=1.0)
    assert made.said(Replay) == []
    assert "never taken" not in caplog.text
    assert [run.tokens.finish for run in resume(made).runs] == ["length"]


def test_an_orphan_survives_its_worker() -> None:
    made = house()
    sequence = made.submit(1, keep=keep())
    made.run_to(sequence, 3)
    leave(made, sequence)
    made.forget()
    made.ready(incarnation=99)
    assert made.said(Recover) == []
    made.turn()
    record = made.record(sequence)
    assert (record.state, record.attempt) == (State.DISPATCHED, 1)
    assert record.generated == [7] * 3
    made.check()


def test_the_worker_is_lost_first_and_the_front_end_then() -> None:
    made = house()
    sequence = made.submit(1, keep=keep())
    made.run_to(sequence, 3)
    made.ready(incarnation=99)
    assert made.record(sequence).state is State.RECOVERING
    made.from_frontend(FrontendGone(100))
    made.turn()
    made.turn()
    assert made.record(sequence).state is State.DISPATCHED


def test_a_front_end_that_was_taken_for_dead_has_its_stream_back() -> None:
    made = house()
    sequence = made.submit(1, keep=keep())
    made.from_frontend(FrontendGone(100))
    made.turn()
    assert made.record(sequence).is_orphan
    made.hello()
    made.from_frontend(Missing(sequence, 0))
    made.turn(after_s=GRACE_S + 1)
    assert not made.record(sequence).is_orphan
    assert made.record(sequence).state is State.DISPATCHED
    assert resume(made).runs


@pytest.mark.parametrize("losses", [1, 2])
def test_a_front_end_that_was_taken_for_dead_and_its_workers_lost(losses: int) -> None:
    """It knows nothing of the attempts in which its sequence has gone on."""
    made = house()
    sequence = made.submit(1, keep=keep())
    made.run_to(sequence, 3)
    made.from_frontend(FrontendGone(100))
    for number in range(losses):
        made.ready(incarnation=90 + number)
    made.hello()
    made.forget()
    made.from_frontend(Missing(sequence, 2))
    made.turn()
    attempt = 0
    while len(made.said(Recover)) > attempt:
        attempt += 1
        made.from_frontend(Submit(spec(1), attempt, [7] * 2, keep=keep(logprobs=[0.0] * 2)))
        made.turn()
    assert attempt == losses
    assert made.said(Replay) == []
    made.from_frontend(Missing(sequence, 2, attempt))
    made.turn(after_s=GRACE_S + 1)
    ((item,),) = (replay.items for replay in made.said(Replay))
    assert (item.attempt, item.index, item.ids) == (attempt, 2, [7])
    assert made.record(sequence).state is State.DISPATCHED
    made.check()


def test_whoever_still_has_the_stream_is_told() -> None:
    made = house()
    old = made.submit(1, keep=keep())
    made.run_to(old, 1)
    take_up(made, 9, resume(made).runs[0])
    (ended,) = made.said(Ended)
    assert (ended.id, ended.reason) == (old, "failed")
    assert "another connection" in ended.message


def test_two_runs_of_one_stream() -> None:
    made = house()
    first = made.submit(1, keep=keep(0, 2))
    assert resume(made).runs == [], "one run is not known yet"
    second = made.submit(2, keep=keep(1, 2))
    made.report(made.token(first, 7, finish="length"), made.token(second, 8))
    leave(made, second)
    found = resume(made)
    assert found.memo == MEMO
    assert [run.tokens.ids for run in found.runs] == [[7], [8]]
    assert [run.tokens.finish for run in found.runs] == ["length", ""]
    new = take_up(made, 9, found.runs[1], run=1, runs=2)
    made.turn(after_s=GRACE_S + 1)
    assert made.record(new).state is State.DISPATCHED
    assert made.metric("millrace_kept_streams") == 0


def test_while_its_client_is_there_a_stream_is_kept_beyond_the_end_of_one_run() -> None:
    made = house(waiting_served_ratio=0.0)
    first, second = made.submit(1, keep=keep(0, 2)), made.submit(2, keep=keep(1, 2))
    made.report(made.token(first, 7, finish="length"), made.token(second, 8))
    made.from_frontend(Delivered(first, success=True))
    made.turn(after_s=GRACE_S + 1)
    leave(made, second)
    assert made.record(second).state is State.DISPATCHED
    assert [run.tokens.ids for run in resume(made).runs] == [[7], [8]]


@pytest.mark.parametrize("grace_s", [GRACE_S, 100.0])
def test_the_end_of_an_orphan_may_be_in_vain(grace_s: float) -> None:
    """Whether its record has ended before its stream is given up, or ends with that."""
    made = house(sse_resume_grace=grace_s)
    sequence = made.submit(1, keep=keep())
    made.run_to(sequence, 2)
    leave(made, sequence)
    made.report(made.token(sequence, 7, finish="length"))
    for _ in range(110):
        made.turn(after_s=1.0)
    assert made.metric("millrace_wasted_tokens_total") == 1


def test_a_failed_sequence_leaves_the_others_to_their_client() -> None:
    made = house()
    first, second = made.submit(1, keep=keep(0, 2)), made.submit(2, keep=keep(1, 2))
    made.report(made.token(second, error="out of memory"))
    made.turn()
    assert made.record(first).state is State.DISPATCHED


def test_a_failed_sequence_ends_the_whole_stream() -> None:
    made = house()
    first, second = made.submit(1, keep=keep(0, 2)), made.submit(2, keep=keep(1, 2))
    leave(made, first)
    leave(made, second)
    made.report(made.token(second, error="out of memory"))
    made.turn()
    assert resume(made).runs == []
    assert made.record(first).state is State.CANCELLING, "nobody can come back for it"
    made.turn(after_s=GRACE_S + 1)  # when it would have been given up
    assert made.metric("millrace_kept_streams") == 0


def test_a_first_token_is_counted_once() -> None:
    made = house()
    old = made.submit(1, keep=keep())
    made.run_to(old, 1)
    leave(made, old)
    new = take_up(made, 9, resume(made).runs[0])
    made.report(released=[old])
    made.turn()
    made.report(made.token(new, 7))
    # Another scheduler had seen the beginning of this one.
    resumed = made.submit(2, generated_ids=[7], keep=keep(ticket="1" * 32, logprobs=[0.0]))
    made.report(made.token(resumed, 7))
    assert made.metric("millrace_time_to_first_token_seconds_count") == 1


def test_who_comes_back_before_the_first_token_has_a_seat() -> None:
    made = house(max_concurrent_requests=1)
    old = made.submit(1, keep=keep())
    leave(made, old)
    found = resume(made)
    assert [run.tokens.ids for run in found.runs] == [[]]
    new = take_up(made, 9, found.runs[0])
    made.turn(after_s=PATIENCE_S)
    assert made.said(Rejected, OTHER) == []
    assert made.record(old).reason == "moved"
    assert made.record(new).state is State.DISPATCHED
    assert made.parts.requests.live == 1


def test_draining_keeps_nobody() -> None:
    made = house()
    gone, here = made.submit(1, keep=keep()), made.submit(2, keep=keep(ticket="1" * 32))
    leave(made, gone)
    made.loop.drain(60)
    made.turn()
    assert made.record(gone).state is State.CANCELLING
    leave(made, here)
    assert made.record(here).state is State.CANCELLING


@pytest.mark.parametrize(
    "wrong",
    [keep(1, 1), keep(-1, 1), keep(0, 1 << 20), keep(logprobs=[0.5]), keep(tops=[[(1, 0.5)]])],
)
def test_nonsense_is_refused(wrong: Keep) -> None:
    made = house()
    made.from_frontend(Submit(spec(1), keep=wrong))
    made.turn()
    assert made.parts.requests.get(sequence_id(1)) is None
