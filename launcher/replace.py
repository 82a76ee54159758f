"""Replaces the worker of a running server: emptied, stopped, started again; requests go on.

The scheduler moves away what the worker runs, and says so; then supervisord, by its socket, stops
the old process and starts a new one. Knows nothing of command lines.
"""

import random
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from supervisor.xmlrpc import Faults, SupervisorTransport

from common.errors import StartupError
from common.messages import Retire, Retired
from common.settings import Settings, read
from common.sockets import TO_OPERATOR, BadFrameError, encode, open_socket, requests_endpoint
from launcher.runtime import SETTINGS, SUPERVISOR_SOCKET, running_servers

EMPTY_LIMIT_S = 120.0
"""So long may a worker take to let everything go: a step of it may be long."""
START_LIMIT_S = 3600.0
"""So long may a new worker take to be ready: it reads the model."""


class Supervisor:
    """Stops and starts processes of a server."""

    def __init__(self, runtime_dir: Path) -> None:
        transport: Any = SupervisorTransport(serverurl=f"unix://{runtime_dir / SUPERVISOR_SOCKET}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        self._calls = proxy.supervisor

    def restart(self, names: list[str]) -> None:
        """Stop processes, wait for their ends, start them. Raises StartupError."""
        try:
            for name in names:
                self._do(Faults.NOT_RUNNING, self._calls.stopProcess, name, True)
            for name in names:
                self._do(Faults.ALREADY_STARTED, self._calls.startProcess, name, False)
        except (xmlrpc.client.Error, OSError) as error:
            raise StartupError(f"{', '.join(names)} could not be started anew: {error}") from None

    def pid_of(self, name: str) -> int:
        """Of a process that has run for a while; 0 if it does not, or nobody can say."""
        try:
            known: Any = self._calls.getProcessInfo(name)
        except (xmlrpc.client.Error, OSError):
            return 0
        return int(known["pid"]) if known["statename"] == "RUNNING" else 0

    def _do(self, harmless: int, call: Any, name: str, wait: bool) -> None:
        """RACE: processes of one model end together, and supervisord starts them by itself."""
        try:
            call(name, wait)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != harmless:
                raise


class Scheduler:
    """Hears how far the replacement of one replica is."""

    def __init__(self, runtime_dir: Path) -> None:
        self._context = zmq.Context()
        self._socket = open_socket(self._context, zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        for readable in (self._socket, self._monitor):
            self._poller.register(readable, zmq.POLLIN)
        self._socket.connect(requests_endpoint(str(runtime_dir)))
        self._tag = random.getrandbits(31)

    def retire(self, replica: int) -> None:
        """Ask for it."""
        self._socket.send(encode(Retire(self._tag, replica)))

    def wait_for(self, stage: str, limit_s: float) -> None:
        """Return at this stage. Raises StartupError if it is refused, or takes too long.

        Also if the scheduler ends meanwhile: its successor knows nothing of the replacement.
        """
        end = time.monotonic() + limit_s
        while (left_s := end - time.monotonic()) > 0:
            readable = dict(self._poller.poll(int(left_s * 1000) + 1))
            if self._socket not in readable:  # what it said before its end counts
                if self._monitor not in readable:
                    break
                raise StartupError(
                    f"the scheduler has ended while the worker was not {stage} yet: "
                    "/health/progress says how the new one stands"
                )
            told = _decoded(self._socket.recv())
            if told is None or told.tag_id != self._tag:
                continue
            if told.stage == "refused":
                raise StartupError(f"the worker was not replaced: {told.message}")
            if told.stage == stage:
                return
        raise StartupError(f"the worker was not {stage} within {limit_s:g} seconds")

    def close(self) -> None:
        """Leave."""
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()


def _decoded(frame: bytes) -> Retired | None:
    try:
        return TO_OPERATOR.decode(frame)
    except BadFrameError:
        return None


def find_server(given: str | None) -> Path:
    """The runtime directory that is meant. Raises StartupError unless there is exactly one."""
    if given is not None:
        path = Path(given).expanduser().absolute()
        if not (path / SETTINGS).is_file():
            raise StartupError(f"{path} is not the runtime directory of a running server")
        return path
    found = running_servers()
    if len(found) == 1:
        return found[0]
    if not found:
        raise StartupError("no server of this user is running: --runtime-dir names one elsewhere")
    names = ", ".join(map(str, found))
    raise StartupError(f"several servers are running: choose one with --runtime-dir ({names})")


def processes_of(settings: Settings, replica: int) -> list[str]:
    """Supervisord's names of a replica's processes."""
    first = replica * settings.num_shard
    return [f"worker:worker_{number}" for number in range(first, first + settings.num_shard)]


def replace(
    runtime_dir: Path,
    replica: int,
    say: Callable[[str], None],
    supervisor: Supervisor | None = None,
    scheduler: Scheduler | None = None,
) -> None:
    """Replace one replica's worker. Raises StartupError; then the old one goes on, or a new one."""
    settings = read(str(runtime_dir / SETTINGS))
    supervisor = supervisor or Supervisor(runtime_dir)
    scheduler = scheduler or Scheduler(runtime_dir)
    try:
        scheduler.retire(replica)
        scheduler.wait_for("empty", EMPTY_LIMIT_S)
        say(f"replica {replica} runs nothing any more; starting a new worker")
        supervisor.restart(processes_of(settings, replica))
        scheduler.wait_for("ready", START_LIMIT_S)
        say(f"replica {replica} is ready")
    finally:
        scheduler.close()
