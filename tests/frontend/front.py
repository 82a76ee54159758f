"""Starts the real front end, gunicorn and all, over the sockets of ``pipeline.py``.

Ends its own processes by their pids.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.stream_client import request_bytes
from common.settings import SETTINGS_VARIABLE
from frontend.text.tokenizer import Tokenizer
from tests.frontend.fakes import settings
from tests.frontend.pipeline import NEVER, Backend

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
        self, model_dir: Path, runtime_dir: Path, grace_s: int = 10, **changes: Any
    ) -> None:
        runtime_dir.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.runtime_dir = runtime_dir
        token = Tokenizer.load(str(model_dir)).encode("x", add_special_tokens=False)[0]
        self.backend = Backend(runtime_dir, token)
        values = settings(
            model_dir=str(model_dir),
            hostname="127.0.0.1",
            port=self.port,
            runtime_dir=str(runtime_dir),
            graceful_termination_timeout=grace_s,
            **changes,
        )
        path = runtime_dir / "settings.json"
        path.write_bytes(msgspec.json.encode(values))
        self.log = (runtime_dir / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "frontend"],
            cwd=ROOT,
            env={**os.environ, SETTINGS_VARIABLE: str(path)},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.backend.start()

    def output(self) -> str:
        return (self.runtime_dir / "log").read_text()

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
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

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
        try:
            status = self.process.wait(LIMIT_S)
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 5)
        finally:
            self.kill(family)
            self.backend.stop()
            self.log.close()
        return status

    def kill(self, family: list[int]) -> None:
        for pid in [*family, self.process.pid]:
            if pid != self.process.pid or self.process.poll() is None:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.process.wait(5)


def body(tokens: int, **parameters: Any) -> dict[str, Any]:
    return {"inputs": "hello", "parameters": {"max_new_tokens": tokens, **parameters}}


NEVER_BODY = body(1000, do_sample=True, seed=NEVER)
