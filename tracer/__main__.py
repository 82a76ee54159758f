"""The tracer process: ``python -m tracer``. Takes spans from the other processes, hands them on.

Runs until SIGTERM or SIGINT, then sends what is left. Nobody depends on it: while it is not there,
spans wait in the other processes' sockets, and too many of them are lost.
"""

import logging
import os
import signal
import socket
import sys
from importlib import metadata

import zmq
from opentelemetry.sdk.resources import Resource

from common import logs
from common.errors import StartupError
from common.settings import Settings, load
from common.sockets import SPANS, BadFrameError, check_runtime_dir, open_socket, traces_endpoint
from tracer.exporting import Outbox, exporter_for, readable

_log = logging.getLogger("tracer")


class Stop:
    """Whether a signal has asked for the end; ``fd`` becomes readable when one does."""

    def __init__(self) -> None:
        self.is_asked = False
        self.fd, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.is_asked = True


def main() -> int:
    """The exit status."""
    stop = Stop()
    settings = load()
    logs.set_up("tracer", json_output=settings.json_output, level=settings.log_level)
    try:
        check_runtime_dir(settings.runtime_dir)
        serve(settings, stop)
    except (OSError, ValueError, StartupError) as error:
        _log.error("no traces are sent: %s", error)
        return 1
    return 0


def serve(settings: Settings, stop: Stop) -> None:
    """Take spans until stopped."""
    endpoint = settings.otlp_endpoint or ""
    outbox = Outbox(exporter_for(endpoint), endpoint)
    resource = Resource.create(
        {
            "service.name": settings.otlp_service_name,
            "service.version": metadata.version("millrace"),
            "service.instance.id": f"{socket.gethostname()}:{settings.port}",
        }
    )
    context = zmq.Context()
    incoming = open_socket(context, zmq.PULL)
    incoming.bind(traces_endpoint(settings.runtime_dir))
    poller = zmq.Poller()
    poller.register(incoming, zmq.POLLIN)
    poller.register(stop.fd, zmq.POLLIN)
    _log.info("traces go to %s", endpoint)
    while not stop.is_asked:
        poller.poll()
        take(incoming, outbox, resource)
    outbox.close()
    incoming.close()
    context.term()


def take(incoming: zmq.Socket[bytes], outbox: Outbox, resource: Resource) -> None:
    """Everything that has arrived. What is no message with spans is dropped, and said once."""
    while True:
        try:
            frame = incoming.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        try:
            message = SPANS.decode(frame)
            spans = [readable(span, message.process, resource) for span in message.spans]
        except (BadFrameError, ValueError) as error:
            _log.warning("dropped a frame, no spans: %s", error)
            continue
        for span in spans:
            outbox.put(span)


if __name__ == "__main__":
    sys.exit(main())
