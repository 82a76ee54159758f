"""The scheduler process: ``python -m scheduler``."""

import logging
import os
import random
import signal
import sys
import time

import zmq

from common import logs, settings
from common.collector import settle
from common.errors import StartupError
from common.failure import EXIT_CONFIGURATION, record_failure
from common.pulse import Pulse
from common.settings import Settings
from common.sockets import SpanSender, check_runtime_dir
from scheduler.exposition import Listener
from scheduler.link import ZmqLink
from scheduler.loop import Loop
from scheduler.metrics import Metrics
from scheduler.parts import Parts
from scheduler.processes import LocalProcesses
from scheduler.tracing import SequenceTracer

_log = logging.getLogger("scheduler")


def main() -> int:
    """Run until SIGTERM or SIGINT has been obeyed; the exit status."""
    resolved: Settings | None = None
    try:
        resolved = settings.load()
        return serve(resolved)
    except StartupError as error:
        record_failure(resolved, "scheduler", str(error))
        return EXIT_CONFIGURATION


def serve(resolved: Settings) -> int:
    """Put everything together and turn until drained."""
    supervisor = os.getppid()
    logs.set_up("scheduler", json_output=resolved.json_output, level=resolved.log_level)
    try:
        check_runtime_dir(resolved.runtime_dir)
        pulse = Pulse(resolved.runtime_dir)
    except (OSError, ValueError) as error:
        raise StartupError(f"the runtime directory cannot be used: {error}") from None
    metrics = Metrics(resolved)
    listener = None
    if resolved.prometheus_port:
        listener = Listener(metrics.render, resolved.hostname, resolved.prometheus_port)
    processes, frontends = LocalProcesses(), LocalProcesses()
    link = ZmqLink(
        resolved.runtime_dir,
        lambda name: metrics.bad_frames.labels(name).inc(),
        [processes.fd, frontends.fd],
    )
    epoch = random.SystemRandom().getrandbits(63) or 1
    context = zmq.Context()
    spans = None
    tracer = None
    if resolved.otlp_endpoint is not None:
        spans = SpanSender(context, resolved.runtime_dir)
        tracer = SequenceTracer(spans, time.monotonic, time.time_ns)
    parts = Parts(
        resolved, epoch, metrics, processes, frontends, time.monotonic, tracer, pulse.beat
    )
    loop = Loop(parts, link, time.monotonic)
    grace_s = float(resolved.graceful_termination_timeout)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.drain(grace_s))
    signal.set_wakeup_fd(link.wake_descriptor, warn_on_full_buffer=False)
    settle()
    _log.info("the scheduler is ready")
    loop.run()
    if os.getppid() != supervisor:
        processes.stop()  # it was killed: workers hear from nobody else that nothing is left
    link.close()
    pulse.close()
    processes.close()
    frontends.close()
    if spans is not None:
        spans.close()
    context.term()
    if listener is not None:
        listener.close()
    _log.info("the scheduler has ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
