"""``python -m worker --number N``: start, run until told to stop, say why if that fails.

Runs in the worker. Owns the process: arguments, signals, exit status. 0 after SIGTERM or SIGINT;
78 if it could not start, with one sentence on standard error and in ``<runtime_dir>/failure``, on
which the launcher stops the server. Anything else is a crash, and a new worker takes over.

Workers are counted through all replicas: shard s of replica r is number r · num_shard + s. Shard 0
of each leads; the others follow it, and end when it does.
"""

import argparse
import gc
import logging
import os
import secrets
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import zmq

from common import logs
from common.errors import StartupError
from common.failure import EXIT_CONFIGURATION, record_failure
from common.settings import Settings, load
from common.sockets import check_runtime_dir
from worker.errors import GroupLostError
from worker.heap import keep_freed_memory
from worker.pinning import confine, own_cpus, pin
from worker.stop import StopSignal

if TYPE_CHECKING:
    from worker.engine import Engine
    from worker.parallel.team import Team

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--number", type=int, default=0, help="number of this worker")
    number = parser.parse_args(arguments).number
    settings: Settings | None = None
    context = zmq.Context()
    try:
        settings = load()
        replica, shard = divmod(number, settings.num_shard)
        name = f"worker-{replica}" if settings.num_shard == 1 else f"worker-{replica}.{shard}"
        logs.set_up(name, json_output=settings.json_output, level=settings.log_level)
        confine(own_cpus(settings, number))
        _prepare(settings, number)
        if shard:
            _follow(context, settings, replica, shard)
            return 0
        team = _team(context, settings, replica)
        engine = _start(settings, team)
    except GroupLostError:
        raise  # a crash: the whole group begins anew
    except Exception as error:
        _say_failure(error, settings)
        return EXIT_CONFIGURATION
    _run(context, engine, team, settings, replica)
    return 0


def _prepare(settings: Settings, number: int) -> None:
    try:
        check_runtime_dir(settings.runtime_dir)
    except (OSError, ValueError) as error:
        raise StartupError(f"the runtime directory cannot be used: {error}") from None
    import torch  # here, so that its absence becomes a sentence

    torch.set_num_threads(settings.worker_threads)
    torch.set_num_interop_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


def _team(context: Any, settings: Settings, replica: int) -> "Team":
    """The other shards of this replica, met; or nobody."""
    from worker.devices import choose
    from worker.parallel.group import Group
    from worker.parallel.leader import Leader
    from worker.parallel.rendezvous import Crew
    from worker.parallel.team import Alone

    size = settings.num_shard
    if size == 1:
        return Alone()
    crew = Crew(context, settings.runtime_dir, replica, size, os._exit)
    return Leader(crew, Group(0, size, choose(settings)[0]))


def _start(settings: Settings, team: "Team") -> "Engine":
    from worker.start import start

    return start(settings, team)


def _follow(context: Any, settings: Settings, replica: int, shard: int) -> None:
    """A follower's whole life. What stops us is said to the leader, too, and goes by it."""
    from worker.devices import choose
    from worker.parallel.group import Group
    from worker.parallel.rendezvous import Berth
    from worker.start import start_follower

    group = Group(shard, settings.num_shard, choose(settings)[0])
    berth = Berth(context, settings.runtime_dir, replica, shard, os._exit)
    store = berth.await_leader().store
    with berth.collective():
        group.form(store)
    follower = start_follower(settings, group)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _settle(settings, replica * settings.num_shard + shard)
    follower.follow(berth)
    berth.close()


def _settle(settings: Settings, number: int) -> None:
    gc.collect()
    gc.freeze()  # what is here now stays: later collections need not look at it
    keep_freed_memory()
    pin(own_cpus(settings, number))


def _run(context: Any, engine: "Engine", team: "Team", settings: Settings, replica: int) -> None:
    from worker.link import SocketLink
    from worker.loop import Identity, Loop

    stop = StopSignal(settings.graceful_termination_timeout)
    incarnation = secrets.randbits(63)
    link = SocketLink(
        context,
        settings.runtime_dir,
        replica=replica,
        incarnation=incarnation,
        wakeup_fds=(stop.fd, *engine.wakeup_fds),
    )
    identity = Identity(
        replica,
        incarnation,
        os.getpid(),
        dtype=engine.dtype,
        device=engine.device,
        followers=tuple(team.followers),
    )
    _settle(settings, replica * settings.num_shard)
    try:
        Loop(engine, link, identity, time.monotonic).run(stop)
    finally:
        link.close()
        team.close()
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
