"""What front ends say, and what they are answered."""

from typing import Any

import pytest

from common.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Alive,
    Cancel,
    Delivered,
    Ended,
    FrontendGone,
    Hello,
    Missing,
    Rejected,
    Replay,
    Scrape,
    Scraped,
    Status,
    Submit,
    Tally,
)
from common.sockets import encode, frontend_identity
from scheduler.frontends import LAPSE_S
from scheduler.requests import State
from tests.scheduler.harness import EPOCH, FRONTEND, House, sequence_id, spec, started
from worker.reports import in_columns


def test_hello_is_answered_by_status() -> None:
    house = House(num_replicas=2)
    house.from_frontend(Hello(PROTOCOL_VERSION, FRONTEND, 1))
    house.turn()
    status = house.said(Status)[0]
    assert (status.version, status.epoch, status.accepting) == (PROTOCOL_VERSION, EPOCH, True)
    assert [(r.replica, r.ready) for r in status.replicas] == [(0, False), (1, False)]


@pytest.mark.parametrize(
    "hello", [Hello(PROTOCOL_VERSION + 1, FRONTEND, 1), Hello(PROTOCOL_VERSION, 6, 1)]
)
def test_a_wrong_hello_is_answered_but_not_believed(
    hello: Hello, caplog: pytest.LogCaptureFixture
) -> None:
    house = House()
    house.from_frontend(hello)
    house.turn()
    assert len(house.said(Status)) == 1
    assert "refused" in caplog.text
    house.submit(1)
    assert house.said(Accepted) == []


@pytest.mark.parametrize(
    "message",
    [Alive(FRONTEND), Submit(spec(1)), Cancel(sequence_id(1), "client_gone"),
     Missing(sequence_id(1), 0), Delivered(sequence_id(1), success=False)],
)  # fmt: skip
def test_an_unknown_front_end_learns_our_epoch(message: Any) -> None:
    house = House()
    house.from_frontend(message)
    house.turn()
    assert [m.epoch for m in house.said(Status)] == [EPOCH]
    assert house.said(Accepted) + house.said(Ended) == []


def test_status_once_a_second_and_when_readiness_changes() -> None:
    house = House()
    house.hello()
    house.forget()
    house.turn(after_s=0.5)
    assert house.said(Status) == []
    house.ready()
    assert [r.ready for m in house.said(Status) for r in m.replicas] == [True]
    house.turn(after_s=0.5)
    assert len(house.said(Status)) == 2
    house.turn(after_s=1.0)
    assert len(house.said(Status)) == 3


def test_submit_is_idempotent() -> None:
    house = started()
    for _ in range(3):
        house.submit(1)
    assert house.said(Accepted) == [Accepted(sequence_id(1), 0)] * 3
    assert house.added() == [sequence_id(1)]
    assert house.metric("tgi_request_input_length_count") == 1
    house.from_frontend(Submit(spec(1), attempt=-1))
    house.turn()
    assert len(house.said(Accepted)) == 3


@pytest.mark.parametrize(
    "submit", [Submit(spec(1, [])), Submit(spec(1, [-1])), Submit(spec(1, frontend=9))]
)
def test_nonsense_is_refused(submit: Submit) -> None:
    house = started()
    house.from_frontend(submit)
    house.turn()
    (rejected,) = house.said(Rejected)
    assert rejected.reason == "invalid"
    assert rejected.message
    assert house.parts.requests.live == 0


@pytest.mark.parametrize(
    ("reason", "dropped"),
    [("client_gone", 1), ("stop_sequence", 0), ("sibling_failed", 0), ("deadline", 0)],
)
def test_cancel_in_the_queue(reason: Any, dropped: int) -> None:
    house = started(max_batch_size=1)
    house.submit(1)
    waiting = house.submit(2)
    house.from_frontend(Cancel(waiting, reason))
    house.turn()
    assert waiting not in house.parts.queue
    assert house.parts.requests.get(waiting) is None
    assert house.metric("tgi_request_failure_total", err="dropped") == dropped
    assert house.ended() == {reason: 1}


def test_cancel_while_running() -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, 2)
    house.forget()
    for _ in range(2):
        house.from_frontend(Cancel(sequence, "client_gone"))
    house.turn()
    assert [d.release for d in house.dispatches()] == [[sequence]]
    assert house.record(sequence).state is State.CANCELLING
    assert house.parts.requests.live == 0
    leases = house.parts.replicas.get(0).leases  # type: ignore[union-attr]
    house.report(house.token(sequence, 7))
    assert leases.get(sequence) is not None, "its worker may still write there"
    house.report(released=[sequence], timing=None)
    assert leases.get(sequence) is None
    assert house.metric("millrace_wasted_tokens_total") == 1
    assert house.metric("tgi_request_failure_total", err="dropped") == 1
    assert house.ended() == {"client_gone": 1}


def test_cancel_crosses_the_finish() -> None:
    house = started()
    sequence = house.submit(1)
    house.from_frontend(Cancel(sequence, "stop_sequence"))
    house.turn()
    house.report(house.token(sequence, 7, finish="length"), released=[sequence])
    assert house.ended() == {"stop_sequence": 1}
    house.check()
    house.from_frontend(Cancel(sequence, "stop_sequence"))
    house.turn()
    assert house.ended() == {"stop_sequence": 1}


def test_missing() -> None:
    house = started(max_batch_size=1)
    sequence = house.submit(1)
    queued = house.submit(2)
    house.run_to(sequence, 5)
    house.forget()
    house.from_frontend(Missing(sequence, 3))
    house.from_frontend(Missing(queued, 0))
    house.from_frontend(Missing(sequence_id(99), 4))
    house.from_frontend(Cancel(sequence, "client_gone"))
    house.from_frontend(Missing(sequence, 3))
    house.turn()
    (replay,) = house.said(Replay)
    assert [(item.index, item.ids) for item in replay.items] == [(3, [7, 7])]
    assert house.said(Ended) == [Ended(s, 0, "unknown") for s in (sequence_id(99), sequence)]


@pytest.mark.parametrize("known", [0, 5])
def test_what_is_missing_here_too_is_replayed_when_it_is_reported(known: int) -> None:
    house = started()
    sequence = house.submit(1)
    house.run_to(sequence, known)
    house.from_frontend(Missing(sequence, known))
    house.turn()
    assert house.said(Replay) == []
    house.report(steady=in_columns([house.token(sequence, 8)])[1])
    (replay,) = house.said(Replay)
    assert [(item.index, item.ids) for item in replay.items] == [(known, [8])]
    house.report(house.token(sequence, 9))
    assert len(house.said(Replay)) == 1


def test_nobody_speaks_for_another_front_end() -> None:
    house = started(frontends=2)
    sequence = house.submit(1)
    for message in (
        Cancel(sequence, "client_gone"),
        Missing(sequence, 0),
        Delivered(sequence, success=False),
    ):
        house.from_frontend(message, FRONTEND + 1)
    house.turn()
    assert house.record(sequence).state is State.DISPATCHED
    assert house.said(Replay, FRONTEND + 1) == []


@pytest.mark.parametrize("how", ["gone", "ended", "lapsed"])
def test_a_dead_front_end_is_cancelled(how: str) -> None:
    house = started(frontends=2, max_batch_size=1)
    other = FRONTEND + 1
    house.submit(1, frontend=other)
    house.submit(2, frontend=other)
    survivor = house.submit(1)
    if how == "gone":
        house.link.frontend_inbox.append((b"\0anybody", encode(FrontendGone(101))))
        house.turn()
    elif how == "ended":  # whoever its parent was, and whatever became of that
        house.frontend_processes.dead = [101]
        house.turn()
        assert house.frontend_processes.held == [100]
    else:
        for _ in range(int(LAPSE_S) + 1):
            house.from_frontend(Alive(FRONTEND))
            house.turn(after_s=1.0)
    assert house.parts.requests.live == 1
    assert house.ended() == {"frontend_gone": 1}
    house.report(released=[sequence_id(1, other)], timing=None)
    assert house.added()[-1] == survivor
    assert house.metric("tgi_request_failure_total", err="dropped") == 2
    house.from_frontend(Alive(other), other)
    house.forget()
    house.turn()
    assert len(house.said(Status, other)) == 1


def test_scrape_is_answered_to_anybody() -> None:
    house = House()
    house.link.frontend_inbox.append((b"scraper", encode(Scrape(42))))
    house.turn()
    ((to, scraped),) = [s for s in house.link.frontend_sent if isinstance(s[1], Scraped)]
    assert (to, scraped.tag_id) == (b"scraper", 42)
    assert b"tgi_request_count 0.0" in scraped.text


def test_the_scrapes_of_a_turn_share_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    texts: list[bytes] = []

    def render() -> bytes:
        texts.append(b"%d" % house.metric("tgi_request_count_total"))
        return texts[-1]

    monkeypatch.setattr(house.metrics, "render", render)
    for tag in range(100):
        house.from_frontend(Scrape(tag))
    house.from_frontend(Tally(3))
    house.turn()
    assert texts == [b"3"], "with all that was said in this turn"
    assert house.said(Scraped) == [Scraped(tag, b"3") for tag in range(100)]
    house.turn()
    assert len(texts) == 1


def test_tally_and_unknown_failures() -> None:
    house = House()
    house.from_frontend(Tally(3, {"validation": 2, "nobody knows": 1, "overloaded": -4}))
    house.turn()
    assert house.metric("tgi_request_count_total") == 3
    assert house.metric("tgi_request_failure_total", err="validation") == 2
    assert house.metric("tgi_request_failure_total", err="other") == 1
    assert house.metric("tgi_request_failure_total", err="overloaded") == 0


def test_a_strange_routing_id_is_a_bad_frame() -> None:
    house = House()
    for identity in (b"F123", b"G0000000f", b"", frontend_identity(3) + b"0"):
        house.link.frontend_inbox.append((identity, encode(Alive(3))))
    house.turn()
    assert house.metric("millrace_bad_frames_total", socket="requests") == 4


def test_an_unreachable_front_end_is_counted() -> None:
    house = started()
    house.link.unreachable.add(frontend_identity(FRONTEND))
    house.submit(1)
    assert house.metric("millrace_unreachable_total", peer="frontend") == 1
    assert house.parts.requests.live == 1
