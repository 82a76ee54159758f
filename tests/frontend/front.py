"""Starts the real front end, gunicorn and all, over the sockets of ``pipeline.py``."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.stream_client import request_bytes
from common.settings import SETTINGS_VARIABLE
from frontend.text.tokenizer import Tokenizer
from tests.end_to_end.harness import free_port
from tests.frontend.fakes import settings
from tests.frontend.pipeline import NEVER, Backend
from tests.processes import alive, started

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


class Front:
    """A started front end and its backend."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", port: int, backend: Backend, log: Path
    ) -> None:
        self.process = process
        self.port = port
        self.backend = backend
        self._log = log

    def output(self) -> str:
        return self._log.read_text()

    def wait(self) -> None:
        """Until it answers."""

        def healthy() -> bool:
            assert self.process.poll() is None, self.output()
            try:
                return self.request("GET", "/health")[0] == 200
            except OSError:
                return False

        until(healthy)

    def children(self) -> list[int]:
        pid = self.process.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [child for child in map(int, found) if alive(child)]

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def listens(self) -> bool:
        """Whether anybody accepts connections on the port."""
        try:
            socket.create_connection(("127.0.0.1", self.port), LIMIT_S).close()
        except OSError:
            return False
        return True

    def connect(self, path: str, body: Any, more: bytes = b"", cut: int = 0) -> socket.socket:
        """A raw connection with a request on it, and with ``more`` behind that.

        The last ``cut`` bytes of it all are not sent.
        """
        data = request_bytes(path, body) + more
        client = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
        client.sendall(data[: len(data) - cut])
        return client

    def stop(self) -> int:
        """SIGTERM; nothing may be left."""
        family = self.children()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(LIMIT_S)
        until(lambda: not any(alive(pid) for pid in family), 5)
        return status

    def check_stop(self) -> None:
        """Stop; all must go well."""
        assert self.stop() == 0, self.output()
        assert "Traceback" not in self.output()


@contextmanager
def starting(
    model_dir: Path, runtime_dir: Path, grace_s: int = 10, **changes: Any
) -> Iterator[Front]:
    """A front end and its backend, not waited for. Both are gone in the end.

    If a test of it fails, what it printed is shown.
    """
    runtime_dir.mkdir(mode=0o700)
    port = free_port()
    values = settings(
        model_dir=str(model_dir),
        hostname="127.0.0.1",
        port=port,
        runtime_dir=str(runtime_dir),
        graceful_termination_timeout=grace_s,
        **changes,
    )
    path, log = runtime_dir / "settings.json", runtime_dir / "log"
    path.write_bytes(msgspec.json.encode(values))
    environment = {**os.environ, SETTINGS_VARIABLE: str(path)}
    command = [sys.executable, "-m", "frontend"]
    token = Tokenizer.load(str(model_dir)).encode("x", add_special_tokens=False)[0]
    with (
        Backend(runtime_dir, token) as backend,
        log.open("wb") as file,
        started(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT) as front,
    ):
        try:
            yield Front(front, port, backend, log)
        except BaseException:
            sys.stderr.write(log.read_text())
            raise


@contextmanager
def running(
    model_dir: Path, runtime_dir: Path, grace_s: int = 10, **changes: Any
) -> Iterator[Front]:
    """As ``starting``; it answers. It must stop well in the end, unless a test has stopped it."""
    with starting(model_dir, runtime_dir, grace_s, **changes) as front:
        front.backend.ready = True
        front.wait()
        yield front
        if front.process.poll() is None:
            front.check_stop()


def body(tokens: int, **parameters: Any) -> dict[str, Any]:
    return {"inputs": "hello", "parameters": {"max_new_tokens": tokens, **parameters}}


NEVER_BODY = body(1000, do_sample=True, seed=NEVER)
