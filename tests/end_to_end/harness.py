"""Starts the real server, as a user would, and talks HTTP to it.

Kills by pid only what it started, waits with time limits, and checks that nothing is left behind.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 90
STOP_LIMIT_S = 30


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    runtime_dir: Path
    log: list[str] = field(default_factory=list)
    collector: threading.Thread | None = None
    """Writes the log, unless the output goes elsewhere."""

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
    ) -> Answer:
        """One request on a connection of its own. ``bytes`` are sent as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(
                answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            )
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
            assert time.monotonic() < end, "the condition did not come true in time"
            time.sleep(0.05)

    def pids(self, what: str) -> list[int]:
        """Pids of this server's processes whose command line contains ``what``."""
        return [pid for pid in children_of(self.process.pid) if what in command_line(pid)]

    def end(self, limit_s: float) -> int:
        """The exit status, once it has ended; the log is whole then."""
        status = self.process.wait(limit_s)
        if self.collector is not None:
            self.collector.join(limit_s)
        return status

    def stop(self) -> int:
        """SIGTERM; the exit status. Nothing that was started may be left."""
        family = children_of(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.end(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the server did not stop in time:\n" + self.tail()) from None
        end = time.monotonic() + 5
        while left := [pid for pid in family if alive(pid)]:
            if time.monotonic() > end:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"processes were left behind: {left}")
            time.sleep(0.02)
        return status

    def kill(self) -> None:
        """End everything that this server started."""
        for pid in [*children_of(self.process.pid), self.process.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(5)

    def tail(self) -> str:
        """The end of what the server printed."""
        return "\n".join(self.log[-60:])


def command_line(pid: int) -> str:
    """The command line of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children_of(root: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ppid = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            parents.setdefault(ppid, []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def environment() -> dict[str, str]:
    """The environment of the tests without anything that would set an option."""
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ}


def launch(
    *arguments: str, env: dict[str, str] | None = None, stdout: Any = subprocess.PIPE
) -> Server:
    """Start ``millrace`` on free ports without waiting for anything."""
    port, prometheus_port = free_port(), free_port()
    command = [sys.executable, "-m", "launcher", "--hostname", "127.0.0.1"]
    command += ["--port", str(port), "--prometheus-port", str(prometheus_port), *arguments]
    process = subprocess.Popen(  # the command is ours
        command,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env={**environment(), **(env or {})},
        cwd=ROOT,
    )
    server = Server(process, port, prometheus_port, Path())
    if process.stdout is not None:
        server.collector = threading.Thread(
            target=_collect, args=(process.stdout, server.log), daemon=True
        )
        server.collector.start()
    return server


def _collect(pipe: Any, log: list[str]) -> None:
    for line in pipe:
        log.append(line.decode(errors="replace").rstrip())


def start(*arguments: str, **kwargs: Any) -> Server:
    """Start ``millrace`` and wait until it is healthy."""
    server = launch(*arguments, **kwargs)
    end = time.monotonic() + START_LIMIT_S
    while True:
        if server.process.poll() is not None:
            raise AssertionError("the server ended at start:\n" + server.tail())
        if time.monotonic() > end:
            server.kill()
            raise AssertionError("the server was not ready in time:\n" + server.tail())
        try:
            if server.get("/health", timeout_s=2).status == 200:
                return server
        except OSError:
            pass
        time.sleep(0.1)


def running(*arguments: str, **kwargs: Any) -> Iterator[Server]:
    """For fixtures: a server that is stopped and checked at the end."""
    server = start(*arguments, **kwargs)
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    status = server.stop()
    assert status == 0, server.tail()


def together(count: int, call: Any) -> list[Any]:
    """``call(i)`` for every i below ``count``, at the same time; the results in order."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))
