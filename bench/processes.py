"""The pipeline without a model: starts a scheduler, front ends and fake workers; what each costs.

Ends by pid what it started.
"""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.peers.contenders import free_port
from common.settings import SETTINGS_VARIABLE, Settings

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "common" / "models" / "builtin"
START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Processor time of all threads that it has, so far.

    By the scheduler's own clock: the one of ``/proc/PID/stat`` only counts who runs when it ticks.
    """
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def rss_mb(pid: int) -> float:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def open_files(pid: int) -> int:
    """Descriptors that a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[int]:
    """Direct children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


class Pipeline:
    """The processes of one server whose model answers at once. To be used in ``with``."""

    def __init__(
        self,
        *,
        frontends: int,
        step_ms: float,
        blocks: int,
        frontend: str = "frontend",
        root: Path = ROOT,
        **settings: Any,
    ) -> None:
        """``frontend`` is the module that is run as front end, ``root`` whose tree all of it is."""
        self._root = root
        self.port = free_port()
        self.runtime_dir = Path(tempfile.mkdtemp(prefix="bench-"))
        values = Settings(
            model_id="bench",
            model_dir=str(MODEL),
            runtime_dir=str(self.runtime_dir),
            hostname="127.0.0.1",
            port=self.port,
            prometheus_port=0,
            num_frontends=frontends,
            **{"max_concurrent_requests": 100_000, "graceful_termination_timeout": 5, **settings},
        )
        (self.runtime_dir / "settings.json").write_bytes(msgspec.json.encode(values))
        self._log = (self.runtime_dir / "log").open("wb")
        worker = ["bench.fake_worker", "--step-ms", str(step_ms), "--blocks", str(blocks)]
        self._modules = {"scheduler": ["scheduler"], "worker": worker, "front ends": [frontend]}
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Pipeline":
        try:
            for name, module in self._modules.items():
                self._started[name] = self._start(*module)
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(self.log(), file=sys.stderr)
        self.close()

    def pids(self) -> dict[str, int]:
        """Every process that does something, by name."""
        found = {name: process.pid for name, process in self._started.items()}
        parent = found.pop("front ends")
        workers = [pid for pid in children(parent) if self._is_frontend(pid)]
        return found | {f"front end {number}": pid for number, pid in enumerate(workers)}

    def metrics(self) -> dict[str, float]:
        """Every series of ``/metrics``."""
        found = {}
        for line in self._get("/metrics").splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                found[name] = float(value)
        return found

    def log(self) -> str:
        """The end of what the processes printed."""
        return (self.runtime_dir / "log").read_text()[-3000:]

    def close(self) -> None:
        """SIGTERM, front ends first; SIGKILL for what does not obey."""
        for process in reversed(self._started.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                for pid in [*children(process.pid), process.pid]:
                    os.kill(pid, signal.SIGKILL)
                process.wait()
        self._log.close()
        shutil.rmtree(self.runtime_dir, ignore_errors=True)

    def _is_frontend(self, pid: int) -> bool:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"frontend" in command and b"guidance" not in command

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            cwd=self._root,
            env={
                **os.environ,
                SETTINGS_VARIABLE: str(self.runtime_dir / "settings.json"),
                "PYTHONPATH": str(self._root),
            },
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status}")
            return body
        finally:
            connection.close()

    def _wait(self) -> None:
        end = time.monotonic() + START_LIMIT_S
        while True:
            try:
                self._get("/health")
                return
            except OSError:
                if time.monotonic() > end or any(p.poll() for p in self._started.values()):
                    sys.exit("the pipeline did not start:\n" + self.log())
                time.sleep(0.1)
