"""Stand-ins for the processes that supervisord runs: small, quick, and steered by files."""

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import poll
from typing import Any

from tests.end_to_end.harness import free_port
from tests.processes import started

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30

_COMMON = """
import os, signal, sys
from pathlib import Path
from common.settings import load
settings = load()
control = Path(os.environ["STANDIN_CONTROL"])
def say(text):
    print(NAME, text, flush=True)
def until_told():
    signal.sigwait({signal.SIGTERM})
    say("stops")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
say(f"runs as {os.getpid()}")
if (control / f"{NAME}-refuses").exists():
    (Path(settings.runtime_dir) / "failure").write_text("the model is made of cheese")
    sys.exit(78)
if (control / f"{NAME}-crashes").exists():
    sys.exit(3)
"""
_PLAIN = _COMMON + "until_told()\n"
_FRONTEND = (
    _COMMON
    + """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        if (control / "told").exists():
            (control / "told").write_text("healthy")
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = HTTPServer(("127.0.0.1", settings.port), Health)
threading.Thread(target=server.serve_forever, daemon=True).start()
until_told()
if (control / "finish").exists():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # of the launcher dying
    (control / "finish").read_text()
"""
)


def make_standins(directory: Path) -> Path:
    """Packages named like the real ones, to be put in front of them."""
    for name, code in {"scheduler": _PLAIN, "worker": _PLAIN, "frontend": _FRONTEND}.items():
        package = directory / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(f"NAME = {name!r}\n{code}")
    return directory


READY = "Millrace is ready"


class Run:
    """A launcher with stand-ins; its output line by line."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        port: int,
        temporary: Path,
        output: "queue.Queue[str | None] | None",
    ) -> None:
        """``output``: lines, and None behind the last one; None if it goes elsewhere."""
        self.process = process
        self.port = port
        self.temporary = temporary
        self.lines: list[str] = []
        self._output = output

    def wait_for(self, *words: str) -> str:
        """The next line that holds all ``words``."""
        while True:
            assert self._output is not None
            line = self._output.get(timeout=LIMIT_S)
            assert line is not None, "the launcher ended:\n" + "\n".join(self.lines)
            self.lines.append(line)
            if all(word in line for word in words):
                return line

    def wait_until_ready(self) -> str:
        """The announcement, also if another wait has come across it before."""
        said = [line for line in self.lines if READY in line]
        return said[0] if said else self.wait_for(READY)

    def pids_of(self, *names: str) -> list[int]:
        """From the next lines in which stand-ins say that they run, in whatever order."""
        found: dict[str, int] = {}
        while not found.keys() >= set(names):
            line = self.wait_for(" runs as ")
            found[line.split()[0]] = int(line.rsplit(" ", 1)[1])
        return [found[name] for name in names]

    def end(self) -> int:
        """The exit status, once the launcher has ended by itself or was told to."""
        status = self.process.wait(LIMIT_S)
        if self._output is not None:
            while (line := self._output.get(timeout=LIMIT_S)) is not None:
                self.lines.append(line)
        return status

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def runtime_dirs(self) -> list[Path]:
        return list(self.temporary.glob("millrace-*"))


@contextmanager
def running(
    home: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    stdout: Any = None,
    python: str = sys.executable,
) -> Iterator[Run]:
    """A launcher with the stand-ins in ``home``; nothing of it is left in the end."""
    port, temporary = free_port(), home / "t"
    temporary.mkdir(exist_ok=True)
    output: queue.Queue[str | None] | None = queue.Queue() if stdout is None else None
    with started(
        [
            *(python, "-m", "launcher", "--hostname", "127.0.0.1"),
            *("--port", str(port), "--prometheus-port", str(free_port()), *arguments),
        ],
        take=output.put if output is not None else None,
        cwd=ROOT,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(home / "standins"),
            "STANDIN_CONTROL": str(home),
            **(env or {}),
        },
    ) as process:
        yield Run(process, port, temporary, output)


def gone(pid: int, limit_s: float = 10) -> bool:
    """Whether a process (not a child of ours) ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        waiter = poll()
        waiter.register(descriptor)
        return bool(waiter.poll(limit_s * 1000))
    finally:
        os.close(descriptor)
