"""Two whole servers behind HAProxy or nginx, with the configuration that ships.

Runs in the tests' process; changes nothing of the shipped files but names and ports. Each server
says who it is in the header ``x-compute-type``.
"""

import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from tests.chaos.kinds import SLOW
from tests.chaos.scene import faults
from tests.deploy.queries import DEPLOY
from tests.end_to_end.harness import START_LIMIT_S, Server, free_port, launch

NAMES = ("one", "two")
GRACE_S = 60
_NGINX = """
daemon off; worker_processes 2; error_log stderr warn; pid {directory}/nginx.pid; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/a; uwsgi_temp_path {directory}/b; scgi_temp_path {directory}/c;
    include {shipped};
}}
"""


def begin(name: str, port: int) -> Server:
    """A server called ``name``, not waited for. Texts take seconds: see the injector of chaos."""
    server = launch(
        "--compute-type", name, "--graceful-termination-timeout", str(GRACE_S),
        "--num-frontends", "1", "--worker-threads", "1", "--max-batch-total-tokens", "32768",
        "--port", str(port),
        env={"MILLRACE_DEBUG_FAULTS": faults()},
    )  # fmt: skip
    server.port = port
    return server


def wait_until_ready(server: Server) -> None:
    """Fail if it takes too long, or ends."""

    def ready() -> bool:
        assert server.process.poll() is None, server.tail()
        try:
            return server.get("/health/ready", timeout_s=5).status == 200
        except OSError:
            return False

    server.until(ready, START_LIMIT_S)


def instantiate(text: str, ports: list[int], front: int) -> str:
    """A shipped configuration with the ports of these servers, on another port than 80."""
    for place, port in enumerate(ports, 1):
        text, count = re.subn(rf"millrace-{place}:8080", f"127.0.0.1:{port}", text)
        assert count == 1
    text, count = re.subn(r"(?m)^(\s+(?:bind|listen) )(:?)80\b", rf"\g<1>\g<2>{front}", text)
    assert count == 1
    return text.replace("127.0.0.1:8404", f"127.0.0.1:{free_port()}")


def command_of(kind: str, directory: Path, ports: list[int], front: int) -> list[str]:
    """The command that runs a balancer in the foreground."""
    if shutil.which(kind) is None:
        pytest.fail(f"install first: apt-get install {kind}", pytrace=False)
    if kind == "haproxy":
        path = directory / "haproxy.cfg"
        text = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
        path.write_text(instantiate(text, ports, front))
        return ["haproxy", "-db", "-f", str(path)]
    shipped = directory / "millrace.conf"
    text = (DEPLOY / "nginx" / "millrace.conf").read_text()
    shipped.write_text(instantiate(text, ports, front))
    path = directory / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    path.write_text(_NGINX.format(directory=directory, shipped=shipped, user=user))
    return ["nginx", "-p", str(directory), "-c", str(path)]


@dataclass
class House:
    """Two servers, and one port for both."""

    front: int
    servers: dict[str, Server]

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
        """SIGTERM; it must end well."""
        server = self.servers[name]
        server.process.terminate()
        assert server.process.wait(GRACE_S + 30) == 0, server.tail()

    def revive(self, name: str) -> None:
        """Start it anew on the same port, and wait until it is ready."""
        server = self.servers[name] = begin(name, self.servers[name].port)
        wait_until_ready(server)


@contextmanager
def balanced(kind: str, directory: Path) -> Iterator[House]:
    """Both servers and the balancer; all are gone afterwards."""
    ports = [free_port(), free_port()]
    house = House(free_port(), {})
    balancer = None
    try:
        for name, port in zip(NAMES, ports, strict=True):
            house.servers[name] = begin(name, port)
        for server in house.servers.values():
            wait_until_ready(server)
        command = command_of(kind, directory, ports, house.front)
        with (directory / "log").open("wb") as log:
            balancer = subprocess.Popen(command, stdout=log, stderr=log)
        house.until(lambda: _up(balancer, house, directory))
        yield house
    finally:
        if balancer is not None:
            balancer.terminate()
            balancer.wait(20)
        for server in house.servers.values():
            if server.process.poll() is None:
                server.kill()


def _up(balancer: subprocess.Popen[bytes], house: House, directory: Path) -> bool:
    assert balancer.poll() is None, (directory / "log").read_text()
    return house.status("/health/ready") == 200


@dataclass(eq=False)
class Call:
    """One request through the balancer, on a thread and a connection of its own."""

    front: int
    streams: bool = True
    tokens: int = 60
    server: str = ""
    """Who answered; empty as long as nobody has."""
    events: int = 0
    error: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> "Call":
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def wait(self) -> "Call":
        assert self.done.wait(120), "a request never ended"
        return self

    @property
    def over(self) -> bool:
        return self.done.is_set()

    def leave(self) -> None:
        """Hang up."""
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.front, timeout=90)
        try:
            self._ask()
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._connection.close()
            self.done.set()

    def _ask(self) -> None:
        body = {
            "model": "x", "prompt": f"Tell me of a {SLOW}:", "stream": self.streams,
            "max_tokens": self.tokens, "ignore_eos": True,
        }  # fmt: skip
        headers = {"content-type": "application/json"}
        self._connection.request("POST", "/v1/completions", orjson.dumps(body), headers)
        answer = self._connection.getresponse()
        self.server = answer.getheader("x-compute-type", "")
        if answer.status != 200:
            self.error = f"{answer.status}: {answer.read()[:200]!r}"
        elif self.streams:
            self._read(answer)
        else:
            self._count(orjson.loads(answer.read())["usage"]["completion_tokens"])

    def _read(self, answer: http.client.HTTPResponse) -> None:
        last = b""
        while line := answer.readline():
            if line.startswith(b"data:"):
                last = line.removeprefix(b"data:").strip()
                self.events += last != b"[DONE]"
        # Without its last chunk a stream was cut; http.client itself says nothing.
        if answer.chunk_left is not None or last != b"[DONE]":
            self.error = "the stream was cut"

    def _count(self, tokens: int) -> None:
        if tokens != self.tokens:
            self.error = f"{tokens} tokens instead of {self.tokens}"
