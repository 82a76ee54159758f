"""``python -m worker --replica N``: start, run until told to stop, say why if that fails.

Runs in the worker. Owns the process: arguments, signals, exit status. 0 after SIGTERM or SIGINT;
78 if it could not start, with one sentence on standard error and in ``<runtime_dir>/failure``, on
which the launcher stops the server. Anything else is a crash, and a new worker takes over.
"""

import argparse
import gc
import logging
import os
import secrets
import signal
import sys
import time
from typing import TYPE_CHECKING

import zmq

from common import logs
from common.errors import StartupError
from common.failure import EXIT_CONFIGURATION, record_failure
from common.settings import Settings, load
from common.sockets import check_runtime_dir

if TYPE_CHECKING:
    from worker.engine import Engine

_log = logging.getLogger(__name__)


class StopSignal:
    """Has a signal asked this process to stop? ``fd`` becomes readable when one does."""

    def __init__(self) -> None:
        self._stopping = False
        self.fd, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def __call__(self) -> bool:
        """True once a signal has come."""
        return self._stopping

    def _stop(self, *_: object) -> None:
        self._stopping = True


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--replica", type=int, default=0, help="number of this copy of the model")
    parser.add_argument("--shard", type=int, default=0, help="number of this part of the copy")
    options = parser.parse_args(arguments)
    settings: Settings | None = None
    try:
        settings = load()
        logs.set_up(
            f"worker-{options.replica}", json_output=settings.json_output, level=settings.log_level
        )
        engine = _start(settings)
    except Exception as error:
        _say_failure(error, settings)
        return EXIT_CONFIGURATION
    _run(engine, settings, options.replica, options.shard)
    return 0


def _start(settings: Settings) -> "Engine":
    try:
        check_runtime_dir(settings.runtime_dir)
    except (OSError, ValueError) as error:
        raise StartupError(f"the runtime directory cannot be used: {error}") from None
    import torch  # here, so that its absence becomes a sentence

    from worker.start import start

    torch.set_num_threads(settings.worker_threads)
    torch.set_num_interop_threads(1)
    return start(settings)


def _run(engine: "Engine", settings: Settings, replica: int, shard: int) -> None:
    from worker.link import SocketLink
    from worker.loop import Identity, Loop

    stop = StopSignal()
    incarnation = secrets.randbits(63)
    context = zmq.Context()
    link = SocketLink(
        context,
        settings.runtime_dir,
        replica=replica,
        shard=shard,
        incarnation=incarnation,
        wakeup_fds=(stop.fd, *engine.wakeup_fds),
    )
    identity = Identity(
        replica, shard, incarnation, os.getpid(), dtype=engine.dtype, device=engine.device
    )
    gc.collect()
    gc.freeze()  # what is here now stays: later collections need not look at it
    try:
        Loop(engine, link, identity, time.monotonic).run(stop)
    finally:
        link.close()
        context.term()
        engine.close()


def _say_failure(error: Exception, settings: Settings | None) -> None:
    if isinstance(error, StartupError):
        sentence = str(error)
    else:
        sentence = f"the worker could not start: {type(error).__name__}: {error}"
        _log.error("start failed", exc_info=error)
    sentence = " ".join(sentence.split())
    record_failure(settings, "worker", sentence)


if __name__ == "__main__":
    sys.exit(main())
