"""Counters through load and faults, as Prometheus keeps them; and the alerts of each fault."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.reference import declared
from tests.end_to_end.harness import Server, running, together
from tests.operate.load import leave
from tests.operate.watcher import Prometheus, watching

LONG = {"inputs": "Go on:", "parameters": {"max_new_tokens": 400,
        "grammar": {"type": "regex", "value": "[a-z ]{500}"}}}  # fmt: skip
LIMIT_S = 90
RESTARTS = "millrace_process_restarts_total"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Prometheus]]:
    directory = tmp_path_factory.mktemp("prometheus")
    with (
        running("--num-frontends", "3", "--max-concurrent-requests", "12") as server,
        watching(server, directory, is_patient=False) as watcher,
    ):
        yield server, watcher


def counters() -> list[str]:
    """Everything that may only grow."""
    counting = {"counter": "{}", "histogram": "{}_count"}
    return [counting[one.kind].format(one.name) for one in declared() if one.kind in counting]


def resets(watcher: Prometheus) -> dict[str, float]:
    """Counters that have ever become smaller between two scrapes."""
    found = {name: watcher.value(f"sum(resets({name}[1h]))") for name in counters()}
    return {name: count for name, count in found.items() if count}


def test_counters_are_what_clients_have_counted(scene: tuple[Server, Prometheus]) -> None:
    server, watcher = scene
    answers = together(
        12, lambda i: server.generate(f"Count to {i}:", max_new_tokens=10 + i, details=True)
    )
    tokens = sum(answer["details"]["generated_tokens"] for answer in answers)
    for _ in range(5):
        assert server.post("/generate", {"inputs": ""}).status == 422
    leave(server, "/generate_stream", LONG)
    leave(server, "/generate_stream", LONG)
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    assert server.post("/v1/chat/completions", chat).status == 200
    expected = {
        "tgi_request_success": 13,
        "tgi_request_success_total": 13,
        'tgi_request_failure{err="validation"}': 5,
        'tgi_request_failure{err="dropped"}': 2,
        "tgi_request_count": 12 + 5 + 2 + 2,
        "tgi_request_generated_tokens_count": 13,
        "tgi_request_duration_seconds_count": 13,
        "tgi_request_input_length_count": 15,
    }
    for name, count in expected.items():
        server.until(lambda name=name, count=count: watcher.value(name) >= count, 30)
        assert watcher.value(name) == count, name
    chatted = watcher.value("tgi_request_generated_tokens_sum") - tokens
    assert 0 < chatted <= 3
    assert watcher.value("tgi_request_generated_tokens_total") == tokens + chatted
    assert resets(watcher) == {}


def test_too_many_requests(scene: tuple[Server, Prometheus]) -> None:
    server, watcher = scene
    statuses = together(30, lambda i: server.post("/generate", LONG).status)
    refused = statuses.count(429)
    assert refused
    assert set(statuses) == {200, 429}
    series = 'tgi_request_failure{err="overloaded"}'
    server.until(lambda: watcher.value(series) >= refused, 30)
    assert watcher.value(series) == refused
    server.until(lambda: watcher.fired("MillraceOverloaded"), 30)


def test_a_worker_that_dies_again_and_again(scene: tuple[Server, Prometheus]) -> None:
    server, watcher = scene
    for death in (1, 2, 3):
        (worker,) = server.pids("-m worker")
        os.kill(worker, signal.SIGKILL)
        name = f'{RESTARTS}{{process="worker-0"}}'
        server.until(lambda death=death, name=name: watcher.value(name) == death, LIMIT_S)
        server.until(lambda: watcher.value("millrace_replicas_ready") == 1, LIMIT_S)
    for alert in ("MillraceReplicasLost", "MillraceNoReadyReplica", "MillraceProcessRestarts"):
        server.until(lambda alert=alert: watcher.fired(alert), 30)
    assert resets(watcher) == {}


def test_a_worker_that_stands_still(scene: tuple[Server, Prometheus]) -> None:
    server, watcher = scene
    (worker,) = server.pids("-m worker")

    def call(number: int) -> int:
        if number == 0:
            return server.post("/generate_stream", LONG).status
        server.until(lambda: server.metrics()["tgi_batch_current_size"] == 1)
        os.kill(worker, signal.SIGSTOP)
        try:
            server.until(lambda: watcher.fired("MillraceStalls"), LIMIT_S)
        finally:
            os.kill(worker, signal.SIGCONT)
        return 0

    assert together(2, call)[0] == 200
    assert watcher.value("max_over_time(millrace_worst_stall_seconds[1h])") > 10


def test_a_new_scheduler_counts_from_zero_but_knows_of_restarts(
    scene: tuple[Server, Prometheus],
) -> None:
    server, watcher = scene
    workers = f'{RESTARTS}{{process="worker-0"}}'
    before = watcher.value(workers)
    for death in (1, 2):
        (scheduler,) = server.pids("-m scheduler")
        os.kill(scheduler, signal.SIGKILL)
        name = f'{RESTARTS}{{process="scheduler"}}'
        server.until(lambda death=death, name=name: watcher.value(name) == death, LIMIT_S)
        server.until(lambda: server.get("/health").status == 200, LIMIT_S)
    server.until(lambda: watcher.fired("MillraceRestarts"), 30)
    assert watcher.value(workers) == before
    found = resets(watcher)
    assert RESTARTS not in found
    assert found["tgi_request_success"] <= 2


def test_a_front_end_that_dies(scene: tuple[Server, Prometheus]) -> None:
    server, watcher = scene
    victim = max(server.pids("-m frontend.serve"))
    os.kill(victim, signal.SIGKILL)
    name = f'{RESTARTS}{{process="frontend"}}'
    server.until(lambda: watcher.value(name) == 1, LIMIT_S)


def test_a_server_that_is_gone(scene: tuple[Server, Prometheus], tmp_path: Path) -> None:
    firing = 'count(ALERTS{alertname="MillraceDown",alertstate="firing",instance!=""})'
    with running() as server, watching(server, tmp_path, is_patient=False) as watcher:
        assert watcher.value(firing) == 0
        assert server.stop() == 0
        server.until(lambda watcher=watcher: watcher.value(firing) == 1, 30)
