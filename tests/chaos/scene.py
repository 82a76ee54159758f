"""A server with an injector, what its health routes say, and when it is as if nothing had been.

The injector slows every step down, so that texts take seconds and faults hit them in the middle.
"""

import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer

from tests.chaos.kinds import EXIT, HANG, MEMORY, SLEEP, SLOW
from tests.end_to_end.conftest import BUILTIN
from tests.end_to_end.harness import Server, launched, wait_until_healthy
from tests.processes import children_of, command_line

KV_TOKENS = 16_384
PACE_S = 0.02
"""What a step takes longer than it would."""
SLEEP_S = 1.0
HANG_S = 4
SETTLE_LIMIT_S = 60.0
PROBE_S = 0.05
HEALTH = ("/health/live", "/health/ready", "/health/progress")


def faults() -> str:
    """The value of MILLRACE_DEBUG_FAULTS, with the ids of the words."""
    tokenizer = Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))

    def at(word: str) -> str:
        ids = tokenizer.encode(f" {word}", add_special_tokens=False).ids
        return ",".join(map(str, ids))

    parts = [f"exit@{at(EXIT)}", f"hang@{at(HANG)}", f"memory@{at(MEMORY)}"]
    parts += [f"slow={PACE_S}@{at(SLOW)}", f"slow={SLEEP_S}@{at(SLEEP)}"]
    return "test-only:" + ";".join(parts)


class Scene:
    """A server under test."""

    def __init__(self, server: Server, *, frontends: int, replicas: int, kv_tokens: int) -> None:
        self.server = server
        self._frontends = frontends
        self._replicas = replicas
        self._blocks = kv_tokens // 16
        self._roles = self._family()

    def settle(self) -> None:
        """Wait until nothing is left of what happened; the test fails if something stays."""
        end = time.monotonic() + SETTLE_LIMIT_S
        while wrong := self.unsettled():
            assert time.monotonic() < end, f"{wrong}\n{self.server.tail()}"
            time.sleep(0.1)
        assert self.server.metrics()["millrace_broken_leases_total"] == 0

    def unsettled(self) -> str:
        """What is not as it was in the beginning."""
        try:
            metrics = self.server.metrics()
            health = [self.server.get(path, timeout_s=5).status for path in HEALTH]
        except OSError as error:
            return f"no answer: {error}"
        if not metrics:
            return "no metrics"
        wanted: dict[str, float] = {
            "tgi_queue_size": 0,
            "tgi_batch_current_size": 0,
            "millrace_live_sequences": 0,
            "millrace_replicas_ready": self._replicas,
            "millrace_frontends": self._frontends,
        }
        wrong = {name: metrics[name] for name, value in wanted.items() if metrics[name] != value}
        for replica in range(self._replicas):
            blocks = [
                metrics[f'millrace_kv_blocks{{replica="{replica}",state="{state}"}}']
                for state in ("free", "cached", "used")
            ]
            if blocks[2] or sum(blocks) != self._blocks:
                wrong[f"blocks of {replica}"] = str(blocks)
        if health != [200, 200, 200]:
            wrong["health"] = str(health)
        roles = self._family()
        if roles != self._roles:
            wrong["processes"] = str(roles)
        return ", ".join(f"{name}: {value}" for name, value in wrong.items())

    def metric(self, name: str) -> float:
        return self.server.metrics()[name]

    def scrape(self) -> dict[str, float]:
        """The metrics from the scheduler's own port: no front end is needed."""
        address = f"http://127.0.0.1:{self.server.prometheus_port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def pid(self, what: str) -> int:
        """The process of that name; the first, if there are several."""
        self.server.until(lambda: self.server.pids(what), 30)
        return self.server.pids(what)[0]

    @property
    def gunicorn(self) -> int:
        """The front ends' parent."""
        pids = self.server.pids("frontend.serve")
        (parent,) = [pid for pid in pids if set(children_of(pid)) & set(pids)]
        return parent

    @property
    def frontends(self) -> list[int]:
        """The processes that answer."""
        parent = self.gunicorn
        return [pid for pid in self.server.pids("frontend.serve") if pid != parent]

    def _family(self) -> Counter[str]:
        """How many processes of each kind there are. Those that check grammars come and go."""
        lines = [command_line(pid) for pid in children_of(self.server.process.pid)]
        kinds = ("scheduler", "worker", "frontend.serve", "listener")
        found = Counter(kind for line in lines for kind in kinds if f"-m {kind}" in line)
        return found + Counter(listener=sum("launcher.listener" in line for line in lines))


@contextmanager
def scene(
    *arguments: str,
    frontends: int = 1,
    replicas: int = 1,
    kv_tokens: int = KV_TOKENS,
    hang_s: float = HANG_S,
) -> Iterator[Scene]:
    """Start, use, stop; unless it has ended, the status must be 0 and nothing may be left."""
    with launched(
        "--num-frontends", str(frontends), "--num-replicas", str(replicas),
        "--worker-threads", "1", "--hang-timeout", str(hang_s),
        "--max-batch-total-tokens", str(kv_tokens), "--max-batch-prefill-tokens", "256",
        *arguments,
        env={"MILLRACE_DEBUG_FAULTS": faults()},
    ) as server:  # fmt: skip
        wait_until_healthy(server)
        server.until(lambda: server.metrics().get("millrace_replicas_ready") == replicas, 60)
        server.until(lambda: server.metrics().get("millrace_frontends") == frontends, 60)
        yield Scene(server, frontends=frontends, replicas=replicas, kv_tokens=kv_tokens)
        if server.process.poll() is None:
            assert server.stop() == 0, server.tail()


class Watch:
    """Asks the health routes all the time, and remembers which statuses they had."""

    def __init__(self, server: Server) -> None:
        self.seen: dict[str, set[int]] = {path: set() for path in HEALTH}
        self.documents: list[Any] = []
        """Answers of /health/progress."""
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._over.wait(PROBE_S):
            for path in HEALTH:
                try:
                    answer = self._server.get(path, timeout_s=20)
                except OSError:
                    self.seen[path].add(0)
                    continue
                self.seen[path].add(answer.status)
                if path.endswith("progress"):
                    self.documents.append(answer.json())
