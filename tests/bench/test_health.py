"""Health checks are timed to their end, and one that is refused is no figure."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import health
from bench.peers.contenders import ContenderError
from tests.launcher.bench.standin import Standin, serving


def test_an_answer_is_timed_from_before_the_connection_to_its_end():
    with serving(Standin()) as url:
        host, port = url.removeprefix("http://").split(":")
        waited_ms = health.ask(host, int(port), "/v1/models")
        assert 0 < waited_ms < 1e3 * health.LIMIT_S
        with pytest.raises(ContenderError, match="/health: 404"):
            health.ask(host, int(port), "/health")


def test_the_routes_take_turns(monkeypatch: pytest.MonkeyPatch):
    @contextmanager
    def idle(port: int, work: health.Work) -> Iterator[None]:
        yield

    asked: list[str] = []

    def ask(host: str, port: int, route: str) -> float:
        asked.append(route)
        return float(len(asked))

    monkeypatch.setattr(health, "busy", idle)
    monkeypatch.setattr(health, "ask", ask)
    monkeypatch.setattr(health, "PAUSE_S", 0.0)
    found = health.measure("http://127.0.0.1:1", health.Work(1, 1, 1), 4)
    assert found == {"/health": [1.0, 4.0], "/health/live": [2.0], "/health/progress": [3.0]}
    assert asked == [*health.ROUTES, "/health"]


def test_a_row_has_percentiles_and_the_worst():
    assert health.row("/health", [float(n) for n in range(101)]) == (
        "| /health | 101 | 50.0 | 99.0 | 100.0 |"
    )
