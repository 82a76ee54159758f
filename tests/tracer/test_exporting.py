"""Spans on their way to a collector: real receivers, dead ones, slow ones."""

import logging
import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from common.spans import Span
from tests.collector import Collector, grpc_collector, http_collector
from tests.end_to_end.harness import free_port
from tracer import exporting
from tracer.exporting import Outbox, exporter_for, readable

RESOURCE = Resource.create({"service.name": "shop"})
TRACE, PARENT, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
SPAN = Span(TRACE, CHILD, PARENT, "queue", 1_000, 2_000, {"n": 3, "s": "x"}, "server", "expired")
LIMIT_S = 10.0


class Stand(SpanExporter):
    """An exporter whose collector does what the test says."""

    def __init__(self) -> None:
        self.is_taking = True
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.release()
        assert self.open.wait(LIMIT_S)
        try:
            if not self.is_taking:
                logging.getLogger("opentelemetry.exporter").error("refused\nonce more")
                return SpanExportResult.FAILURE
            self.taken += len(spans)
            return SpanExportResult.SUCCESS
        finally:
            self.done.release()

    def shutdown(self) -> None:
        pass


def send_through(collector: Collector) -> None:
    outbox = Outbox(exporter_for(collector.endpoint), collector.endpoint)
    outbox.put(readable(SPAN, "scheduler", RESOURCE))
    outbox.close(LIMIT_S)
    assert outbox.lost == 0


@pytest.mark.parametrize("open_collector", [grpc_collector, http_collector])
def test_a_span_arrives_as_it_is(open_collector: object) -> None:
    with open_collector() as collector:  # type: ignore[operator]
        send_through(collector)
        (span,) = collector.spans
    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, CHILD, PARENT)
    assert (span.name, span.began_ns, span.ended_ns, span.kind) == ("queue", 1_000, 2_000, 2)
    assert span.attributes == {"n": 3, "s": "x", "millrace.process": "scheduler"}
    assert (span.service, span.error) == ("shop", "expired")


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        ("http://c:4317", "grpc"),
        ("https://c:4317", "grpc"),
        ("c:4317", "grpc"),
        ("http://c:4318", "http"),
        ("http://c:80/v1/traces", "http"),
        ("https://c/otlp/v1/traces", "http"),
    ],
)
def test_the_protocol_follows_from_the_endpoint(endpoint: str, kind: str) -> None:
    exporter = exporter_for(endpoint)
    assert f".{kind}." in type(exporter).__module__
    exporter.shutdown()


def test_ids_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        readable(Span("x", "y", "", "n", 0, 1), "p", RESOURCE)


@pytest.mark.parametrize("dead", ["refuses", "is not there"])
def test_a_collector_that_does_not_take_spans(
    dead: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "EXPORT_LIMIT_S", 0.3)
    with http_collector(status=404) as collector:
        there = collector.endpoint
        place = there if dead == "refuses" else f"http://127.0.0.1:{free_port()}"
        outbox = Outbox(exporter_for(place), place)
        for _ in range(3):
            outbox.put(readable(SPAN, "p", RESOURCE))
        outbox.close(LIMIT_S)
    assert outbox.lost == 3
    (line,) = [record for record in caplog.records if record.name.startswith("tracer")]
    assert line.levelno == logging.WARNING
    assert place in line.getMessage()
    assert "\n" not in line.getMessage()


def test_loss_is_told_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    stand = Stand()
    stand.is_taking = False
    outbox = Outbox(stand, "there")
    for _ in range(3):
        outbox.put(readable(SPAN, "p", RESOURCE))
        assert stand.done.acquire(timeout=LIMIT_S)
    stand.is_taking = True
    outbox.put(readable(SPAN, "p", RESOURCE))
    outbox.close(LIMIT_S)
    assert (outbox.lost, stand.taken) == (3, 1)
    said = [r.getMessage() for r in caplog.records if r.name.startswith("tracer")]
    assert said == [
        "the collector there does not take spans (refused once more): they are lost until it does, "
        "1 so far",
        "the collector there takes spans again: 3 were lost",
    ]


def test_a_slow_collector_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand()
    stand.open.clear()
    outbox = Outbox(stand, "there", most_waiting=2)
    span = readable(SPAN, "p", RESOURCE)
    outbox.put(span)
    assert stand.entered.acquire(timeout=LIMIT_S)
    for _ in range(50):
        outbox.put(span)
    assert outbox.lost == 48
    stand.open.set()
    assert stand.done.acquire(timeout=LIMIT_S)
    assert stand.done.acquire(timeout=LIMIT_S)
    outbox.close(LIMIT_S)
    assert stand.taken == 3
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1


def test_many_spans_travel_in_few_batches() -> None:
    stand = Stand()
    outbox = Outbox(stand, "there")
    stand.open.clear()
    span = readable(SPAN, "p", RESOURCE)
    for _ in range(exporting.BATCH * 2):
        outbox.put(span)
    stand.open.set()
    outbox.close(LIMIT_S)
    assert stand.taken == exporting.BATCH * 2
    calls = 0
    while stand.done.acquire(blocking=False):
        calls += 1
    assert calls <= 4
