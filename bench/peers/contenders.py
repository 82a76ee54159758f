"""What can be put under load: a server over HTTP, or a library in a process of its own.

Owns the processes: each is started when entered, and ended, with all its children, when left. Knows
nothing of who is compared with whom.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import load

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 600.0  # vLLM compiles for more than three minutes on slow machines
STOP_LIMIT_S = 30.0
_PR_SET_PDEATHSIG = 1


class ContenderError(Exception):
    """One sentence: it did not start, or did not do its work."""


def _end_with_parent() -> None:
    """In the new process: SIGTERM when ours dies, even of SIGKILL. Survives ``exec``."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Start:
    """How a process is started, but for its port."""

    command: tuple[str, ...]
    """``{port}`` is replaced in it."""
    variables: Mapping[str, str] = field(default_factory=dict)


class Contender(ABC):
    """A process that works while it is entered."""

    def __init__(self, name: str, start: Start, log: Path) -> None:
        self.name = name
        self.version = ""
        self.start_s = 0.0
        self.port = free_port()
        self._start = start
        self._log = log
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        command = [part.replace("{port}", str(self.port)) for part in self._start.command]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **self._start.variables},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=self._output(log.fileno()),
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            self._wait(began + START_LIMIT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.start_s = round(time.monotonic() - began, 1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its session is its own
        self._process.wait()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It and its children get no processor: some keep one busy while nobody asks them."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    @abstractmethod
    def run(self, work: load.Work) -> dict[str, Any]:
        """Do the work; the figures of ``load.summary``. Raises ContenderError."""

    @abstractmethod
    def _wait(self, until: float) -> None:
        """Until it is ready. Raises ContenderError."""

    def _output(self, log: int) -> int:
        return log

    def _error(self, what: str) -> ContenderError:
        return ContenderError(f"{self.name} {what}: see {self._log}")


class Server(Contender):
    """Answers ``/v1/completions``."""

    def __init__(
        self, name: str, start: Start, log: Path, *, model: str = "tgi", ignores_eos: bool = True
    ) -> None:
        super().__init__(name, start, log)
        url = f"http://127.0.0.1:{self.port}"
        self.target = load.Target(url, "openai", model, ignores_eos)

    def run(self, work: load.Work) -> dict[str, Any]:
        """Over HTTP, streamed."""
        found = load.run(self.target, work)
        if found["fail"]:
            raise self._error(f"failed {found['fail']} requests ({found['failures'][0]})")
        return found

    def _wait(self, until: float) -> None:
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.target.url}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise self._error("did not start")


class Library(Contender):
    """A module of ``bench.drivers``, or another that answers as they do."""

    def run(self, work: load.Work) -> dict[str, Any]:
        """Through the driver."""
        order = {
            "prompts": work.prompts,
            "streams": work.streams,
            "new_tokens": work.new_tokens,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        found = self._answer(time.monotonic() + load.LIMIT_S)
        first_s, gaps_s = found.get("first_s", []), found.get("gaps_s", [])
        return load.summary(found["wall_s"], found["tokens"], first_s, gaps_s)

    def _wait(self, until: float) -> None:
        self.version = str(self._answer(until)["ready"])

    def _output(self, log: int) -> int:
        return subprocess.PIPE

    def _answer(self, until: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], until - time.monotonic())
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise self._error("gave no answer")
        found: dict[str, Any] = json.loads(line)
        return found
