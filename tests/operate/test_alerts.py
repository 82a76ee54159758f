"""The alerts of too little room, of a missing replica, and of workers that stand still.

With the rules that ship, in a hurry: see the watcher. Together with ``test_faults.py`` every alert
is made to fire that a fault from outside can bring about.
"""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.queries import of_alerts, of_autoscaling
from tests.end_to_end.harness import Server, running, together
from tests.operate.watcher import Prometheus, watching

LONG = {"prompt": "Go on:", "max_tokens": 380, "ignore_eos": True}
ONLY_BUGS = {"MillraceBrokenLeases"}
"""No fault from outside breaks the books; promtool alone tests it (``alerts_test.yml``)."""
CALLERS = 14
LIMIT_S = 90
Scene = tuple[Server, Prometheus]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two workers; each takes four sequences, and has room for one and a bit of those below."""
    flags = {
        "num-replicas": 2, "max-input-tokens": 64, "max-total-tokens": 448, "max-batch-size": 4,
        "max-batch-total-tokens": 512, "hang-timeout": 120,
    }  # fmt: skip
    directory = tmp_path_factory.mktemp("prometheus")
    with (
        running(*(f"--{flag}={value}" for flag, value in flags.items())) as server,
        watching(server, directory, is_patient=False) as watcher,
    ):
        yield server, watcher


def crowded(server: Server, act: Any) -> list[int]:
    """More callers than are taken at once, again and again until ``act`` is over; statuses."""
    over = threading.Event()

    def call(number: int) -> list[int]:
        if number == 0:
            try:
                act()
            finally:
                over.set()
            return []
        statuses = []
        while not over.is_set():
            statuses.append(server.post("/v1/completions", LONG, timeout_s=LIMIT_S).status)
        return statuses

    return [status for statuses in together(CALLERS, call) for status in statuses]


def expect(scene: Scene, *alerts: str) -> None:
    server, watcher = scene
    for alert in alerts:
        server.until(lambda alert=alert: watcher.fired(alert), LIMIT_S)


def test_too_little_room(scene: Scene) -> None:
    server, watcher = scene

    def act() -> None:
        expect(scene, "MillraceKvNearlyFull", "MillracePreemptions")
        for query in of_autoscaling():  # each would have more pods come
            server.until(lambda query=query: watcher.value(query.expression) > 0, LIMIT_S)

    assert set(crowded(server, act)) == {200}


def test_a_replica_is_missing(scene: Scene) -> None:
    server, watcher = scene
    assert not watcher.fired("MillraceReplicaMissing")
    os.kill(server.pids("--number 0")[0], signal.SIGKILL)
    expect(scene, "MillraceReplicaMissing")
    server.until(lambda: watcher.value("millrace_replicas_ready") == 2, LIMIT_S)


def test_all_workers_stand_still(scene: Scene) -> None:
    server, watcher = scene
    alerts = ("MillraceNoProgress", "MillraceQueueStuck", "MillraceErrors")
    assert not any(map(watcher.fired, (*alerts, "MillraceQueueSlow")))

    def stop() -> None:
        server.until(lambda: server.metrics()["tgi_queue_size"] > 0)
        workers = server.pids("-m worker")
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        try:
            late = server.post("/v1/completions", LONG, headers={"x-request-timeout-ms": "2000"})
            assert late.status == 408
            expect(scene, *alerts)
            server.until(lambda: watcher.value("millrace_worst_stall_seconds") > 15, LIMIT_S)
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)

    assert set(crowded(server, stop)) == {200}
    expect(scene, "MillraceQueueSlow")


def test_no_alert_was_forgotten() -> None:
    here = Path(__file__).parent
    text = "".join((here / name).read_text() for name in ("test_alerts.py", "test_faults.py"))
    for query in of_alerts():
        assert query.place in ONLY_BUGS or f'"{query.place}"' in text, query.place
