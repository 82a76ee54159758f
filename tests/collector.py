"""A real OTLP receiver on loopback, over gRPC or HTTP, that keeps what it gets.

Runs in the tests' process. The messages are those of the OpenTelemetry protocol.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class Received:
    """One span, with what its resource says."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    kind: int
    attributes: dict[str, Any]
    service: str
    error: str


@dataclass
class Collector:
    """Where traces go, and what has come."""

    endpoint: str
    spans: list[Received] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    """Be gone."""

    def take(self, request: Any) -> None:
        for group in request.resource_spans:
            service = _attributes(group.resource.attributes)["service.name"]
            for scope in group.scope_spans:
                self.spans += [_received(span, service) for span in scope.spans]

    def of(self, trace_id: str) -> dict[str, list[Received]]:
        """The spans of a trace by name."""
        found: dict[str, list[Received]] = {}
        for span in list(self.spans):
            if span.trace_id == trace_id:
                found.setdefault(span.name, []).append(span)
        return found


def _received(span: Any, service: str) -> Received:
    return Received(
        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
        span.start_time_unix_nano, span.end_time_unix_nano, span.kind,
        _attributes(span.attributes), service, span.status.message if span.status.code == 2 else "",
    )  # fmt: skip


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@contextmanager
def grpc_collector(port: int = 0) -> Iterator[Collector]:
    """Speaks OTLP over gRPC, as TGI's collectors do."""
    collector = Collector("")

    class Servicer(TraceServiceServicer):  # type: ignore[misc]
        def Export(self, request: Any, context: Any) -> Any:
            collector.take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    collector.stop = lambda: server.stop(None).wait(5)
    server.start()
    try:
        yield collector
    finally:
        collector.stop()


@contextmanager
def http_collector(status: int = 200) -> Iterator[Collector]:
    """Speaks OTLP over HTTP, or refuses everything with another status."""
    collector = Collector("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if status == 200 and self.path == "/v1/traces":
                collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
