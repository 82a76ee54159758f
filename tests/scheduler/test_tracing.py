"""The spans of sequences: one message when a record ends, from moments that it holds."""

from common.messages import Cancel, Delivered, FrontendGone, Submit
from common.spans import Span
from scheduler.requests import Record
from tests.scheduler.harness import FRONTEND, WALL_NS, House, sequence_id, spec

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ONE = sequence_id(1)


def house(**changes: object) -> House:
    made = House(tracing=True, **changes)
    made.hello()
    return made


def submitted(made: House, flags: str = "01", **more: object) -> Record:
    made.submit(1, request="r1", traceparent=f"00-{TRACE}-{PARENT}-{flags}", **more)
    return made.record(ONE)


def spans(made: House) -> dict[str, Span]:
    (message,) = made.traced
    assert message.process == "scheduler"
    assert all((s.trace_id, s.parent_id) == (TRACE, PARENT) for s in message.spans)
    assert len({s.span_id for s in message.spans}) == len(message.spans)
    return {span.name: span for span in message.spans}


def seconds(made: House, span: Span) -> tuple[float, float]:
    """Begin and end by the house's clock."""
    now = made.clock.now
    return (now - (WALL_NS - span.began_ns) / 1e9, now - (WALL_NS - span.ended_ns) / 1e9)


def test_a_whole_life() -> None:
    made = house()
    submitted(made)
    made.clock.now += 1.0
    made.ready()
    made.clock.now += 2.0
    made.report(made.token(ONE, 7))
    made.clock.now += 3.0
    made.report(made.token(ONE, 7, finish="length"))
    made.clock.now += 4.0
    assert made.traced == []
    made.from_frontend(Delivered(ONE, True, 2))
    made.turn()
    found = spans(made)
    assert list(found) == ["queue", "prefill", "decode"]
    assert seconds(made, found["queue"]) == (1000.0, 1001.0)
    assert seconds(made, found["prefill"]) == (1001.0, 1003.0)
    assert seconds(made, found["decode"]) == (1003.0, 1006.0)
    common = {"millrace.sequence": f"{ONE:x}", "millrace.request_id": "r1"}
    assert found["queue"].attributes == common | {"millrace.priority": 0}
    assert found["prefill"].attributes == common | {
        "gen_ai.usage.input_tokens": 20, "millrace.cached_tokens": 0,
    }  # fmt: skip
    assert found["decode"].attributes == common | {
        "gen_ai.usage.output_tokens": 2, "millrace.end": "length",
        "millrace.preemptions": 0, "millrace.attempts": 1,
    }  # fmt: skip
    assert not any(span.error for span in found.values())


def test_what_never_ran_has_only_waited() -> None:
    made = house()
    submitted(made, timeout_s=5.0)
    made.turn(after_s=6.0, halted=True)
    found = spans(made)
    assert list(found) == ["queue"]
    assert (found["queue"].error, seconds(made, found["queue"])) == ("expired", (1000.0, 1006.0))


def test_the_part_in_which_it_failed_has_the_error() -> None:
    made = house()
    made.ready()
    submitted(made)
    made.report(made.token(ONE, error="no memory"))
    found = spans(made)
    assert list(found) == ["queue", "prefill"]
    assert (found["queue"].error, found["prefill"].error) == ("", "failed")


def test_a_client_that_left_is_no_error() -> None:
    made = house()
    made.ready()
    submitted(made)
    made.report(made.token(ONE, 7))
    made.from_frontend(Cancel(ONE, "client_gone"))
    made.turn()
    made.report(released=[ONE])
    decode = spans(made)["decode"]
    assert (decode.error, decode.attributes["millrace.end"]) == ("", "client_gone")


def test_a_lost_worker_is_part_of_the_same_spans() -> None:
    made = house()
    made.ready()
    submitted(made)
    made.report(made.token(ONE, 7))
    made.ready(incarnation=10)
    again = spec(1, request="r1", traceparent=f"00-{TRACE}-{PARENT}-01")
    made.from_frontend(Submit(again, attempt=1, generated_ids=[7]))
    made.turn()
    made.report(made.token(ONE, 7, finish="eos_token"))
    made.from_frontend(Delivered(ONE, True, 2))
    made.turn()
    found = spans(made)
    assert list(found) == ["queue", "prefill", "decode"]
    assert found["decode"].attributes["millrace.attempts"] == 2
    assert found["decode"].attributes["gen_ai.usage.output_tokens"] == 2


def test_without_a_sampled_trace_there_are_no_spans() -> None:
    for flags in ("00", "nonsense"):
        made = house()
        made.ready()
        submitted(made, flags)
        made.from_frontend(FrontendGone(100))
        made.turn()
        made.report(released=[ONE])
        assert made.ended() == {"frontend_gone": 1}
        assert made.traced == []


def test_without_a_collector_nothing_is_made() -> None:
    made = House()
    made.hello()
    submitted(made)
    made.from_frontend(FrontendGone(100))
    made.turn()
    assert FRONTEND not in made.parts.frontends.numbers()
    assert made.traced == []
