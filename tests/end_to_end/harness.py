"""Starts the real server, as a user would, and talks HTTP to it.

Waits with time limits, and checks that a server that is stopped leaves nothing behind.
"""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import alive, children_of, command_line, end, started

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 90
STOP_LIMIT_S = 30
_PORTS = range(10_000, 32_768)
"""Below those of outgoing connections, as Linux has it unless told otherwise."""


def free_port() -> int:
    """A TCP port that nobody listens on at the moment.

    RACE: one that the system chooses may be an outgoing connection's by the time a server is there;
    these it gives to nobody by itself.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data events of an SSE body; ``[DONE]`` stays a string."""
        found: list[Any] = []
        for block in self.body.decode().split("\n\n"):
            if block.startswith("data: "):
                data = block.removeprefix("data: ")
                found.append(data if data == "[DONE]" else json.loads(data))
        return found


@dataclass
class Server:
    """A running ``millrace``; ``log`` holds everything that it printed."""

    process: subprocess.Popen[bytes]
    port: int
    prometheus_port: int
    log: list[str] = field(default_factory=list)
    is_whole: threading.Event = field(default_factory=threading.Event)
    """No line will be added to the log."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60,
        begun: Callable[[], None] = lambda: None,
    ) -> Answer:
        """One request on a connection of its own. ``bytes`` are sent as they are.

        ``begun`` is called when the first line of the answer's body is there.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            first = answer.readline()
            begun()
            received = {k.lower(): v for k, v in answer.getheaders()}
            return Answer(answer.status, received, first + answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **kwargs: Any) -> Answer:
        return self.request("POST", path, body, **kwargs)

    def get(self, path: str, **kwargs: Any) -> Answer:
        return self.request("GET", path, **kwargs)

    def generate(self, inputs: str, **parameters: Any) -> Any:
        """``POST /generate``; the answer must be 200."""
        answer = self.post("/generate", {"inputs": inputs, "parameters": parameters})
        assert answer.status == 200, answer.body
        return answer.json()

    def greedy(
        self, prompt: str, tokens: int, *, begun: Callable[[], None] = lambda: None, **more: Any
    ) -> str:
        """Streams a text of so many tokens: the end token does not end it. See ``request``."""
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        *events, usage, done = self.post("/v1/completions", body | more, begun=begun).events()
        assert done == "[DONE]"
        assert all("error" not in event for event in events), events[-1]
        assert usage["usage"]["completion_tokens"] == tokens
        return "".join(event["choices"][0]["text"] for event in events)

    def metrics(self) -> dict[str, float]:
        """Every series of ``/metrics`` as ``name{labels}`` to value."""
        series = {}
        for line in self.get("/metrics").body.decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                series[name] = float(value)
        return series

    def until(self, condition: Any, limit_s: float = 20) -> None:
        """Wait until ``condition()`` holds; fail after ``limit_s``."""
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, f"it did not come true in time:\n{self.tail()}"
            time.sleep(0.05)

    def pids(self, what: str) -> list[int]:
        """Pids of this server's processes whose command line contains ``what``."""
        return [pid for pid in children_of(self.process.pid) if what in command_line(pid)]

    def end(self, limit_s: float) -> int:
        """The exit status, once it has ended; the log is whole then."""
        status = self.process.wait(limit_s)
        assert self.is_whole.wait(limit_s), f"somebody holds its output:\n{self.tail()}"
        return status

    def stop(self) -> int:
        """SIGTERM; the exit status. Nothing that was started may be left."""
        family = children_of(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.end(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError("the server did not stop in time:\n" + self.tail()) from None
        limit = time.monotonic() + 5
        while left := [pid for pid in family if alive(pid)]:
            assert time.monotonic() < limit, f"processes were left behind: {left}"
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        """End it and everything that it has started."""
        end(self.process)

    def tail(self) -> str:
        """The end of what the server printed."""
        return "\n".join(self.log[-60:])


def environment() -> dict[str, str]:
    """The environment of the tests without anything that would set an option."""
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


@contextmanager
def launched(
    *arguments: str, env: dict[str, str] | None = None, stdout: Any = None, port: int = 0
) -> Iterator[Server]:
    """``millrace`` on free ports, or on ``port``; nothing is waited for. In the end it is killed.

    Its output is its log, unless it goes to ``stdout``.
    """
    port, prometheus_port = port or free_port(), free_port()
    command = [sys.executable, "-m", "launcher", "--hostname", "127.0.0.1"]
    command += ["--port", str(port), "--prometheus-port", str(prometheus_port), *arguments]
    with logged(command, stdout, env={**environment(), **(env or {})}, cwd=ROOT) as (process, *log):
        yield Server(process, port, prometheus_port, *log)


@contextmanager
def logged(
    command: Sequence[str], stdout: Any = None, **options: Any
) -> Iterator[tuple["subprocess.Popen[bytes]", list[str], threading.Event]]:
    """As ``started``: a process, its log, whether that is whole. With ``stdout`` it stays empty."""
    log: list[str] = []
    is_whole = threading.Event()

    def take(line: str | None) -> None:
        if line is None:
            is_whole.set()
        else:
            log.append(line)

    if stdout is None:
        output: dict[str, Any] = {"take": take}
    else:
        output = {"stdout": stdout, "stderr": subprocess.STDOUT}
        is_whole.set()
    with started(command, **output, **options) as process:
        yield process, log, is_whole


def wait_until_healthy(server: Server) -> None:
    """Fail if it takes too long, or ends."""

    def healthy() -> bool:
        assert server.process.poll() is None, f"the server ended at start:\n{server.tail()}"
        try:
            return server.get("/health", timeout_s=2).status == 200
        except OSError:
            return False

    server.until(healthy, START_LIMIT_S)


@contextmanager
def running(*arguments: str, **kwargs: Any) -> Iterator[Server]:
    """A healthy server that is stopped in the end: its status must be 0, and nothing left."""
    with launched(*arguments, **kwargs) as server:
        wait_until_healthy(server)
        yield server
        assert server.stop() == 0, server.tail()


def together(count: int, call: Any) -> list[Any]:
    """``call(i)`` for every i below ``count``, at the same time; the results in order."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))
