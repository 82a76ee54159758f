"""The metrics as Prometheus text, and the listener of ``--prometheus-port``.

TGI's counters carry no ``_total`` suffix and its names are API, but ``prometheus_client`` forces
the suffix; so the text is written here from the collected samples. The listener runs in a thread of
the scheduler and only reads. Knows no metric by name.
"""

import math
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from common.errors import StartupError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_READ_TIMEOUT_S = 10
MOST_CONNECTIONS = 32
"""At once; more are closed unheard. Nobody with a key watches this port, and each is a thread."""


def render(
    registry: CollectorRegistry,
    bare_counters: frozenset[str] = frozenset(),
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Text format 0.0.4. Counters in ``bare_counters`` are written without ``_total``.

    A family in ``aliases`` is written a second time under that name.
    """
    lines: list[str] = []
    for family in registry.collect():
        suffix = ""
        if family.type == "counter" and family.name not in bare_counters:
            suffix = "_total"
        name = family.name + suffix
        written = [f"{_rest(family, sample)} {_number(sample.value)}" for sample in family.samples
                   if sample.name != f"{family.name}_created"]  # fmt: skip
        meanings = {name: _escaped(family.documentation)}
        if name in aliases:
            meanings[aliases[name]] = f"The same as {name}"
        for served, meaning in meanings.items():
            lines.append(f"# HELP {served} {meaning}")
            lines.append(f"# TYPE {served} {family.type}")
            lines += [served + rest for rest in written]
    lines.append("")
    return "\n".join(lines).encode()


def _rest(family: Metric, sample: Sample) -> str:
    """What comes after the family's name: a part such as ``_sum``, and the labels."""
    part = "" if family.type == "counter" else sample.name.removeprefix(family.name)
    return part + _labels(sample)


def _labels(sample: Sample) -> str:
    if not sample.labels:
        return ""
    pairs = (f'{name}="{_quoted(value)}"' for name, value in sample.labels.items())
    return "{" + ",".join(pairs) + "}"


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


class Listener:
    """Serves ``GET /metrics`` until closed."""

    def __init__(self, text: Callable[[], bytes], hostname: str, port: int) -> None:
        """Raises StartupError if the port cannot be had."""

        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_TIMEOUT_S

            def do_GET(self) -> None:
                if self.path.split("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = text()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Scrapes are not worth a line."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = _family(hostname, port)
            places = threading.BoundedSemaphore(MOST_CONNECTIONS)

            def process_request(self, request: Any, client_address: Any) -> None:
                if not self.places.acquire(blocking=False):
                    self.shutdown_request(request)
                    return
                try:
                    super().process_request(request, client_address)
                except BaseException:  # no thread could be had
                    self.places.release()
                    raise

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    self.places.release()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Scrapers that hang up are not worth a line."""
                if not isinstance(sys.exception(), OSError):
                    super().handle_error(request, client_address)

        try:
            self._server = Server((hostname, port), Handler)
        except OSError as error:
            raise StartupError(_refusal(hostname, port, error)) from None
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _family(hostname: str, port: int) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(hostname, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise StartupError(_refusal(hostname, port, error)) from None


def _refusal(hostname: str, port: int, error: OSError) -> str:
    return (
        f"cannot serve metrics on {hostname}:{port} ({error.strerror or error}): "
        "choose another --prometheus-port, or 0 for none"
    )
