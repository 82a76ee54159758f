"""From our spans to OpenTelemetry's, and off to the collector: a bounded queue and one thread.

Runs in the tracer. Owns what is lost while the collector is dead, slow or elsewhere: it is counted,
and told in one line when that begins and one when it ends. The official exporters do the rest.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from common.spans import Span

MOST_WAITING = 8192
"""Spans that wait for the collector; further ones are lost."""
BATCH = 512
BATCH_S = 0.5
"""A batch is sent when it is full, or after so long."""
EXPORT_LIMIT_S = 5.0
"""After so long a batch that the collector does not take is lost, repetitions included."""
CLOSE_LIMIT_S = 3.0
HTTP_PORT = 4318
HTTP_PATH = "/v1/traces"

_SCOPE = InstrumentationScope("millrace")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)

_log = logging.getLogger(__name__)


def exporter_for(endpoint: str) -> SpanExporter:
    """OTLP over gRPC, as TGI speaks it; over HTTP if the URL has a path, or HTTP's usual port."""
    url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    if url.path.strip("/") or url.port == HTTP_PORT:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter as HttpExporter,
        )

        whole = url if url.path.strip("/") else url._replace(path=HTTP_PATH)
        return HttpExporter(whole.geturl(), timeout=EXPORT_LIMIT_S)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
        OTLPSpanExporter as GrpcExporter,
    )

    return GrpcExporter(url.geturl(), timeout=EXPORT_LIMIT_S)


def readable(span: Span, process: str, resource: Resource) -> ReadableSpan:
    """OpenTelemetry's form of a span. Raises ValueError for ids that are none."""
    trace_id = int(span.trace_id, 16)

    def context(span_id: str) -> SpanContext:
        return SpanContext(trace_id, int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)

    return ReadableSpan(
        span.name,
        context(span.span_id),
        context(span.parent_id) if span.parent_id else None,
        resource,
        {**span.attributes, "millrace.process": process},
        kind=SpanKind.SERVER if span.kind == "server" else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.began_ns,
        end_time=span.ended_ns,
        instrumentation_scope=_SCOPE,
    )


class Outbox:
    """Sends spans in batches from a thread of its own. ``put`` never waits."""

    def __init__(
        self,
        exporter: SpanExporter,
        place: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """``place`` is the collector's name in the log."""
        self.lost = 0
        self._exporter = exporter
        self._place = place
        self._clock = clock
        self._waiting: queue.Queue[ReadableSpan | None] = queue.Queue(most_waiting)
        self._is_losing = False
        self._last_words = LastWords()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, span: ReadableSpan) -> None:
        """Have a span sent, or lose it if too many wait."""
        try:
            self._waiting.put_nowait(span)
        except queue.Full:
            self._lose(1, "it is too slow")

    def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        """Send what waits, if the collector takes it at once."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(limit_s)
        if not self._thread.is_alive():
            self._exporter.shutdown()

    def _run(self) -> None:
        while True:
            batch, is_last = self._next_batch()
            if batch:
                self._send(batch)
            if is_last:
                return

    def _next_batch(self) -> tuple[list[ReadableSpan], bool]:
        """Waits for a span, then a little for others; True with the last ones."""
        batch: list[ReadableSpan] = []
        span = self._waiting.get()
        until = self._clock() + BATCH_S
        while span is not None:
            batch.append(span)
            if len(batch) >= BATCH:
                return batch, False
            try:
                span = self._waiting.get(timeout=max(until - self._clock(), 0.0))
            except queue.Empty:
                return batch, False
        return batch, True

    def _send(self, batch: list[ReadableSpan]) -> None:
        self._last_words.forget()
        try:
            is_taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:
            is_taken, self._last_words.words = False, f"{type(error).__name__}: {error}"
        if not is_taken:
            self._lose(len(batch), self._last_words.words)
        elif self._is_losing:
            self._is_losing = False
            _log.info("the collector %s takes spans again: %d were lost", self._place, self.lost)

    def _lose(self, count: int, why: str) -> None:
        self.lost += count
        if not self._is_losing:
            self._is_losing = True
            _log.warning(
                "the collector %s does not take spans (%s): they are lost until it does, %d so far",
                self._place,
                why,
                self.lost,
            )


class LastWords(logging.Handler):
    """Keeps what the exporters say instead of writing it, once for every try."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words = ""
        exporters = logging.getLogger("opentelemetry")
        exporters.propagate = False
        exporters.handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        """The latest line, without a traceback."""
        self.words = " ".join(record.getMessage().split())

    def forget(self) -> None:
        """What is said from now on belongs to another batch."""
        self.words = ""
