"""The conversation with the scheduler: acceptance, gaps, replay, resubmission, silence."""

from typing import Any

import gevent
import msgspec
import pytest
from msgspec.structs import replace

from common.errors import ErrorKind, RequestError
from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Alive,
    Cancel,
    Delivered,
    Ended,
    Hello,
    Keep,
    Missing,
    Recover,
    Rejected,
    Replay,
    ReplicaStatus,
    Resume,
    Resumed,
    Scrape,
    Scraped,
    SequenceTokens,
    Submit,
    Tally,
    frontend_of,
)
from frontend.link import GIVE_UP_S, UNKNOWN_LIMIT
from frontend.live import STALL_S
from frontend.standing import SILENT_S
from tests.frontend.wire import Wire, item


def test_ids_belong_to_the_front_end_and_are_new() -> None:
    link = Wire().link
    ids = [link.next_id() for _ in range(10)]
    assert len(set(ids)) == 10
    assert {frontend_of(i) for i in ids} == {5}


def test_hello_first_then_a_heartbeat() -> None:
    wire = Wire()
    wire.link.begin()
    wire.pass_time(2)
    assert wire.sent == [
        Hello(version=PROTOCOL_VERSION, frontend=5, pid=99),
        Alive(frontend=5),
        Alive(frontend=5),
    ]


def test_a_lapse_of_our_own_is_followed_by_hello() -> None:
    wire = Wire()
    wire.link.begin()
    wire.clock.now += 10
    wire.status()
    wire.link.beat()
    assert [type(m) for m in wire.sent] == [Hello, Hello, Alive]


def test_accepted_rejected_draining_invalid() -> None:
    wire = Wire()
    good, busy, draining, invalid = (wire.submit() for _ in range(4))
    wire.link.receive(Accepted(id=good.spec.id, attempt=0))
    assert good.accepted
    assert wire.woken == 1
    wire.link.receive(Rejected(id=busy.spec.id, attempt=0, reason="overloaded", retry_after_s=3.2))
    wire.link.receive(Rejected(id=draining.spec.id, attempt=0, reason="draining"))
    wire.link.receive(Rejected(id=invalid.spec.id, attempt=0, reason="invalid", message="no"))
    assert busy.failure is not None
    assert draining.failure is not None
    assert invalid.failure is not None
    assert (busy.failure.kind, busy.failure.retry_after_s) == (ErrorKind.OVERLOADED, 3.2)
    assert busy.failure.message == "Model is overloaded"
    assert draining.failure.kind is ErrorKind.UNAVAILABLE
    assert invalid.failure.kind is ErrorKind.VALIDATION


def test_answers_to_another_attempt_are_ignored() -> None:
    wire = Wire()
    box = wire.submit()
    wire.link.receive(Recover(ids=[box.spec.id]))
    wire.link.receive(Accepted(id=box.spec.id, attempt=0))
    wire.link.receive(Rejected(id=box.spec.id, attempt=0, reason="overloaded"))
    wire.link.receive(Ended(id=box.spec.id, attempt=0, reason="failed"))
    assert not box.accepted
    assert not box.over


def test_a_gap_is_asked_for_once_then_with_back_off() -> None:
    wire = Wire()
    box = wire.submit()
    wire.tokens(item(box, 0), item(box, 2), item(box, 3))
    assert wire.said(Missing) == [Missing(id=box.spec.id, index=1)]
    wire.pass_time(8)
    assert len(wire.said(Missing)) == 4  # at once, then after 1, 2 and 4 seconds
    wire.link.receive(Replay(items=[item(box, 1, 3)]))
    assert box.ids == [0, 1, 2, 3]
    wire.pass_time(4)
    assert len(wire.said(Missing)) == 4


def test_a_new_gap_is_asked_for_at_once() -> None:
    wire = Wire()
    box = wire.submit()
    wire.tokens(item(box, 1))
    wire.tokens(item(box, 0))
    wire.tokens(item(box, 3))
    assert [m.index for m in wire.said(Missing)] == [0, 2]


def test_a_submit_without_an_answer_is_repeated_after_hello() -> None:
    """A scheduler that took us for dead answers nothing but Hello."""
    wire = Wire()
    box = wire.submit(timeout_s=30.0)
    wire.pass_time(2)
    hello, repeated = wire.sent[-2:]
    assert isinstance(hello, Hello)
    assert isinstance(repeated, Submit)
    assert (repeated.attempt, repeated.timeout_s) == (0, 28.0)
    wire.link.receive(Accepted(id=box.spec.id, attempt=0))
    wire.pass_time(4)
    assert len(wire.said(Submit)) == 2


def test_a_lost_last_message_is_found_by_silence() -> None:
    """No later token shows the gap, so the link asks by itself."""
    wire = Wire()
    box = wire.submit()
    wire.tokens(item(box, 0))
    assert not wire.said(Hello)
    wire.pass_time(STALL_S)
    assert wire.said(Hello)
    assert wire.said(Missing) == [Missing(id=box.spec.id, index=1)]
    wire.link.receive(Replay(items=[item(box, 1, 1, "length")]))
    assert box.over
    wire.pass_time(60)
    assert len(wire.said(Missing)) == 1


def test_while_tokens_come_nothing_is_asked_for() -> None:
    wire = Wire()
    box = wire.submit()
    for index in range(20):
        wire.tokens(item(box, index))
        wire.pass_time(1)
    assert wire.said(Missing) == []


def test_recover_resubmits_with_what_was_delivered() -> None:
    wire = Wire()
    box, other = wire.submit(timeout_s=20.0), wire.submit()
    wire.tokens(item(box, 0, 3), item(box, 5))
    wire.clock.now += 5
    wire.link.receive(Recover(ids=[box.spec.id, 12345]))
    submit = wire.said(Submit)[-1]
    assert (submit.spec, submit.attempt, submit.generated_ids) == (box.spec, 1, [0, 1, 2])
    assert submit.timeout_s == pytest.approx(15.0)
    wire.tokens(item(box, 3, attempt=0))
    assert len(box.ids) == 3
    wire.tokens(item(box, 3, 1, "length", attempt=1))
    assert box.ids == [0, 1, 2, 3]
    assert other.attempt == 0


def test_a_new_epoch_resubmits_everything_alive() -> None:
    wire = Wire()
    boxes = [wire.submit() for _ in range(3)]
    wire.tokens(item(boxes[0], 0, 1, "length"))
    wire.status(epoch=2)
    assert [type(m) for m in wire.sent[3:]] == [Hello, Submit, Submit]
    assert [box.attempt for box in boxes] == [0, 1, 1]
    wire.status(epoch=2)
    assert len(wire.said(Hello)) == 1


def test_unknown_sequences_are_resubmitted_within_bounds() -> None:
    wire = Wire()
    box = wire.submit()
    # The answer to a Missing from before our Submit says nothing.
    wire.link.receive(Ended(id=box.spec.id, attempt=0, reason="unknown"))
    assert box.attempt == 0
    for attempt in range(UNKNOWN_LIMIT):
        wire.link.receive(Accepted(id=box.spec.id, attempt=attempt))
        wire.link.receive(Ended(id=box.spec.id, attempt=0, reason="unknown"))
        assert box.attempt == attempt + 1
    wire.link.receive(Accepted(id=box.spec.id, attempt=UNKNOWN_LIMIT))
    wire.link.receive(Ended(id=box.spec.id, attempt=0, reason="unknown"))
    assert box.failure is not None
    assert box.failure.kind is ErrorKind.INCOMPLETE


@pytest.mark.parametrize(
    ("reason", "kind"), [("failed", ErrorKind.GENERATION), ("expired", ErrorKind.TIMEOUT)]
)
def test_ended_fails_the_sequence(reason: Any, kind: ErrorKind) -> None:
    wire = Wire()
    box = wire.submit()
    wire.link.receive(Ended(id=box.spec.id, attempt=0, reason=reason, message="why"))
    assert box.failure is not None
    assert box.failure.kind is kind
    assert box.failure.message.endswith("why")


def test_release_cancels_only_what_goes_on_and_only_once() -> None:
    wire = Wire()
    running, ended = wire.submit(), wire.submit()
    wire.tokens(item(ended, 0, 1, "length"))
    for box in (running, ended, running, ended):
        delivered = Delivered(id=box.spec.id, success=True)
        wire.link.release(box, delivered, "client_gone")
    assert wire.said(Cancel) == [Cancel(id=running.spec.id, reason="client_gone")]
    assert [m.id for m in wire.said(Delivered)] == [running.spec.id, ended.spec.id]
    wire.tokens(item(running, 0))
    assert running.ids == []
    wire.status(epoch=9)
    assert len(wire.said(Submit)) == 2


def test_submit_needs_a_scheduler_that_is_heard() -> None:
    wire = Wire(heard=False)
    with pytest.raises(RequestError) as caught:
        wire.submit()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    wire.status()
    wire.submit()
    wire.clock.now += SILENT_S + 0.1
    with pytest.raises(RequestError):
        wire.submit()


def test_a_silent_scheduler_is_waited_for_but_not_for_ever() -> None:
    wire = Wire()
    box = wire.submit()
    wire.pass_time(GIVE_UP_S - 1, heard=False)
    assert not box.over
    assert len(wire.sent) < GIVE_UP_S + 10  # nobody is there to be asked
    wire.pass_time(2, heard=False)
    assert box.failure is not None
    assert box.failure.kind is ErrorKind.UNAVAILABLE


def test_who_was_halted_blames_nobody_for_silence() -> None:
    """A machine that is suspended for longer than anybody would wait: all goes on."""
    wire = Wire()
    wire.pass_time(3)
    box = wire.submit()
    wire.clock.now += 10 * GIVE_UP_S
    assert wire.link.unhealthy() == ""
    assert wire.link.status() is not None
    wire.submit()  # is not refused, though nothing was heard for so long
    wire.link.beat()
    assert not box.over
    wire.pass_time(GIVE_UP_S + 1, heard=False)
    assert box.failure is not None, "but from then on it counts"


def test_health() -> None:
    wire = Wire(heard=False)
    assert wire.link.unhealthy()
    wire.status()
    assert wire.link.unhealthy() == ""
    wire.status(accepting=False)
    assert "draining" in wire.link.unhealthy()
    wire.status(replicas=[ReplicaStatus(replica=0, ready=False)])
    assert wire.link.unhealthy()
    stuck = ReplicaStatus(replica=0, ready=True, running=3, progress_age_s=100.0)
    wire.status(replicas=[stuck])
    assert "progress" in wire.link.unhealthy()
    for fine in (replace(stuck, progress_age_s=1.0), replace(stuck, running=0)):
        wire.status(replicas=[fine])
        assert wire.link.unhealthy() == ""
    wire.status(replicas=[stuck, ReplicaStatus(replica=1, ready=True)])
    assert wire.link.unhealthy() == ""
    wire.clock.now += SILENT_S + 1
    assert wire.link.unhealthy()
    wire.status(version=PROTOCOL_VERSION + 1)
    assert "version" in wire.link.unhealthy()


def test_tallies_travel_with_the_heartbeat_or_a_scrape() -> None:
    wire = Wire()
    wire.link.tally(requests=1)
    wire.link.tally(requests=1, failure="validation")
    wire.link.beat()
    assert wire.said(Tally) == [Tally(requests=2, failures={"validation": 1})]
    wire.link.tally(failure="template")
    assert wire.link.scrape(0.0) is None
    tally, scrape = wire.sent[-2:]
    assert tally == Tally(failures={"template": 1})
    assert isinstance(scrape, Scrape)


def test_scrapes_are_matched_by_tag() -> None:
    wire = Wire()

    def answer(message: msgspec.Struct) -> None:
        if isinstance(message, Scrape):
            wire.link.receive(Scraped(tag_id=message.tag_id + 1, text=b"other"))
            wire.link.receive(Scraped(tag_id=message.tag_id, text=b"ours"))

    wire.link._send = answer  # type: ignore[method-assign]
    assert wire.link.scrape(1.0) == b"ours"


def test_what_belongs_to_a_kept_stream_is_handed_in_with_all_that_is_known() -> None:
    wire = Wire()
    keep = Keep("0" * 32, "owner", 0, 1, b"memo")
    box = wire.submit(keep=keep)
    wire.link.receive(Accepted(id=box.spec.id, attempt=0))
    wire.tokens(item(box, 0, 3))
    wire.link.receive(Recover(ids=[box.spec.id]))
    first, again = wire.said(Submit)
    assert first.keep == keep
    assert again.keep == Keep("0" * 32, "owner", 0, 1, b"memo", [-1.0] * 3)
    assert again.generated_ids == [0, 1, 2]


def test_a_sequence_that_has_a_past() -> None:
    wire = Wire(queue_timeout_s=5.0)
    past = SequenceTokens(1, 0, 0, [7, 8], [-1.0, -2.0])
    box = wire.submit(keep=Keep("0" * 32, "", 0, 1), past=past)
    (submit,) = wire.said(Submit)
    assert (submit.generated_ids, submit.keep.logprobs) == ([7, 8], [-1.0, -2.0])
    assert submit.queue_timeout_s == 0.0, "it has been waited for already"
    assert box.take() == []
    wire.tokens(item(box, 2))
    assert [i.index for i in box.take()] == [2]


def test_a_question_about_a_kept_stream() -> None:
    wire = Wire()
    answers: list[Resumed | None] = []
    asking = gevent.spawn(lambda: answers.append(wire.link.resume("0" * 32, "owner", 5.0)))
    gevent.sleep(0)
    (resume,) = wire.said(Resume)
    assert (resume.ticket, resume.owner) == ("0" * 32, "owner")
    wire.link.receive(Resumed(resume.tag_id + 1))
    wire.link.receive(Resumed(resume.tag_id, b"memo"))
    asking.join(5)
    assert answers == [Resumed(resume.tag_id, b"memo")]
    assert wire.link.resume("0" * 32, "owner", 0.01) is None
