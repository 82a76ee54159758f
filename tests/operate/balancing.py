"""Two whole servers behind HAProxy or nginx, with the configuration that ships.

Runs in the tests' process. Each server says who it is in the header ``x-compute-type``.
"""

import http.client
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.scene import faults
from tests.end_to_end.harness import START_LIMIT_S, Server, free_port, launched
from tests.operate.balancers import KINDS, NAMES, Balancer
from tests.processes import started

GRACE_S = 60


def begun(name: str, port: int) -> AbstractContextManager[Server]:
    """A server called ``name``, not waited for. Texts take seconds: see the injector of chaos."""
    return launched(
        "--compute-type", name, "--graceful-termination-timeout", str(GRACE_S),
        "--num-frontends", "1", "--worker-threads", "1", "--max-batch-total-tokens", "32768",
        env={"MILLRACE_DEBUG_FAULTS": faults()}, port=port,
    )  # fmt: skip


def wait_until_ready(server: Server) -> None:
    """Fail if it takes too long, or ends."""

    def ready() -> bool:
        assert server.process.poll() is None, server.tail()
        try:
            return server.get("/health/ready", timeout_s=5).status == 200
        except OSError:
            return False

    server.until(ready, START_LIMIT_S)


@dataclass
class House:
    """Two servers, and one port for both."""

    front: int
    servers: dict[str, Server]
    balancer: Balancer
    lives: ExitStack
    """Ends whatever still runs."""

    def live(self) -> dict[str, int]:
        """Sequences at each server."""
        return {
            name: int(server.metrics()["millrace_live_sequences"])
            for name, server in self.servers.items()
        }

    def until(self, condition: Callable[[], bool], limit_s: float = 30) -> None:
        """Wait until it holds; fail after ``limit_s``."""
        self.servers[NAMES[0]].until(condition, limit_s)

    def status(self, path: str) -> int:
        """What the balancer answers to a GET; 0 if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.front, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def stop(self, name: str) -> None:
        """As operators do: out of the balancer, then SIGTERM; it must end well."""
        server = self.servers[name]
        self.balancer.take_out(name, server.port)
        server.process.terminate()
        assert server.process.wait(GRACE_S + 30) == 0, server.tail()

    def revive(self, name: str) -> None:
        """Start it anew, and let the balancer have it when it is ready."""
        self.begin_anew(name)
        self.balancer.put_back(name, self.servers[name].port)

    def begin_anew(self, name: str) -> None:
        """Start it on the same port, and wait until it is ready."""
        self.begin(name, self.servers[name].port)
        wait_until_ready(self.servers[name])

    def begin(self, name: str, port: int) -> None:
        """Start it, and do not wait."""
        self.servers[name] = self.lives.enter_context(begun(name, port))


@contextmanager
def balanced(kind: str, directory: Path) -> Iterator[House]:
    """Both servers and the balancer; all are gone afterwards."""
    ports = [free_port(), free_port()]
    if shutil.which(kind) is None:
        pytest.fail(f"install first: apt-get install {kind}", pytrace=False)
    front = free_port()
    with ExitStack() as lives:
        house = House(front, {}, KINDS[kind](directory, ports, front), lives)
        for name, port in zip(NAMES, ports, strict=True):
            house.begin(name, port)
        for server in house.servers.values():
            wait_until_ready(server)
        log = lives.enter_context((directory / "log").open("wb"))
        command = house.balancer.command
        balancer = lives.enter_context(started(command, stdout=log, stderr=log))
        house.until(lambda: _up(balancer, house, directory))
        yield house


def _up(balancer: subprocess.Popen[bytes], house: House, directory: Path) -> bool:
    assert balancer.poll() is None, (directory / "log").read_text()
    return house.status("/health/ready") == 200
