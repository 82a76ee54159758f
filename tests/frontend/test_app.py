"""What holds for every route: ids, errors as JSON, the log; health, info, metrics."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.logs import JsonFormatter
from common.messages import PROTOCOL_VERSION, ReplicaStatus, Status, Tally
from frontend.middleware.tracking import STALL_S
from tests.frontend.fakes import Server, serve
from tests.frontend.openapi.strict import check, operation

PATHS = [
    "/",
    "/generate",
    "/generate_stream",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
]


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.mark.parametrize("path", PATHS)
def test_rejections_are_json(server: Server, path: str) -> None:
    def post(body: bytes, content_type: str | None = "application/json") -> Any:
        headers = {} if content_type is None else {"content-type": content_type}
        return server.client.simulate_post(path, body=body, headers=headers)

    for answer, status in (
        (post(b"{"), 400),
        (post(b"{}", "text/plain"), 415),
        (post(b"{}", None), 415),
        (post(b'{"inputs": "' + b"a" * 2_000_000 + b'"}'), 413),
        (post(b"{}"), 422),
    ):
        assert answer.status_code == status
        assert answer.json["error_type"] == "validation"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]


def test_a_connection_may_stand_still_for_so_long(server: Server) -> None:
    told: list[float] = []
    socket = SimpleNamespace(settimeout=told.append)
    assert server.get("/info", extras={"gunicorn.socket": socket}).status_code == 200
    assert told == [STALL_S]


def test_request_ids(server: Server) -> None:
    given = server.get("/info", headers={"X-Request-Id": "abc-123"})
    assert given.headers["x-request-id"] == "abc-123"
    made = {server.get("/info").headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    for bad in ("a b", "x" * 200, "ü"):
        answer = server.get("/info", headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"] != bad


def test_health(server: Server) -> None:
    for path in ("/health", "/health/ready", "/ping", "/"):
        for call in (server.client.simulate_get, server.client.simulate_head):
            answer = call(path)
            assert (answer.status_code, answer.content) == (200, b"")
    server.pipeline.status(ready=False)
    for path in ("/health", "/health/ready", "/ping", "/"):
        answer = server.get(path)
        assert answer.status_code == 503
        assert answer.json == {"error": "unhealthy", "error_type": "healthcheck"}
    server.pipeline.status()
    assert server.get("/health").status_code == 200
    server.pipeline.clock.now += 6  # type: ignore[attr-defined]
    assert server.get("/health").status_code == 503


def progress(server: Server, *replicas: ReplicaStatus, **more: Any) -> Any:
    """The answer of /health/progress after such a heartbeat."""
    status = Status(version=PROTOCOL_VERSION, epoch=1, replicas=list(replicas), **more)
    server.pipeline.link.receive(status)
    return server.get("/health/progress")


def test_health_live_asks_nobody(server: Server) -> None:
    server.pipeline.status(ready=False)
    server.pipeline.clock.now += 60  # type: ignore[attr-defined]
    server.pipeline.link.stop()
    for call in (server.client.simulate_get, server.client.simulate_head):
        answer = call("/health/live")
        assert (answer.status_code, answer.content) == (200, b"")


def test_progress_tells_what_runs(server: Server) -> None:
    busy = ReplicaStatus(replica=0, ready=True, running=3, progress_age_s=0.25)
    starting = ReplicaStatus(replica=1, ready=False, progress_age_s=100.0)
    answer = progress(server, busy, starting, waiting=2, running=3, accepting=False)
    assert answer.status_code == 200
    assert answer.json == {
        "replicas": [
            {"replica": 0, "ready": True, "running": 3, "progress_age_s": 0.25},
            {"replica": 1, "ready": False, "running": 0, "progress_age_s": 100.0},
        ],
        "waiting": 2,
        "running": 3,
        "accepting": False,
    }


def test_progress_is_503_while_a_replica_gets_nowhere(server: Server) -> None:
    stalled = ReplicaStatus(replica=1, ready=False, running=3, progress_age_s=7.26)
    answer = progress(server, ReplicaStatus(replica=0, ready=True), stalled, running=3)
    assert answer.status_code == 503
    assert answer.json["error"] == "replica 1 has made no progress for 7.3 s"
    check(operation("get", "/health/progress"), 503, "application/json", answer.content)
    assert server.get("/health/ready").status_code == 200
    assert progress(server, ReplicaStatus(replica=0, ready=True, running=1)).status_code == 200
    server.pipeline.clock.now += 6  # type: ignore[attr-defined]
    silent = server.get("/health/progress")
    assert (silent.status_code, silent.json["error"]) == (503, "the scheduler is not answering")


def test_a_process_that_is_told_to_end_is_unhealthy(server: Server) -> None:
    server.pipeline.link.stop()
    assert server.get("/health").status_code == 503
    server.pipeline.status()
    assert server.get("/health").status_code == 503


def test_info(server: Server) -> None:
    assert server.get("/info").json == {
        "model_id": "org/model",
        "model_sha": None,
        "model_pipeline_tag": None,
        "max_concurrent_requests": 128,
        "max_best_of": 2,
        "max_stop_sequences": 4,
        "max_input_tokens": 1024,
        "max_total_tokens": 2048,
        "validation_workers": 2,
        "max_client_batch_size": 4,
        "router": "text-generation-router",
        "version": "1.2.3",
        "sha": None,
        "docker_label": None,
        "model_dtype": "float32",
        "model_device_type": "cpu",
        "max_input_length": 1024,
        "waiting_served_ratio": 0.3,
        "max_batch_total_tokens": 4096,
        "max_waiting_tokens": 20,
        "max_batch_size": None,
    }
    head = server.client.simulate_head("/info")
    assert (head.status_code, head.content) == (200, b"")


def test_metrics(server: Server) -> None:
    answer = server.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "tgi_queue_size 0\n"


def test_mistakes_of_ours_are_500_and_quote_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> list[int]:
        raise ValueError("the secret prompt")

    server.services.tokenizer.encode = broken  # type: ignore[method-assign]
    answer = server.post("/generate", {"inputs": "secret prompt"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "secret" not in caplog.text
    assert "ValueError at broken" in caplog.text
    server.pipeline.link.flush()
    assert server.pipeline.of(Tally) == [Tally(1, {"internal": 1})]


def test_access_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.post("/generate", {"inputs": "hello secret"}, headers={"X-Request-Id": "r1"})
    server.post("/generate_stream", {"inputs": "hello secret"}, headers={"X-Request-Id": "r2"})
    server.post("/generate", {"inputs": ""}, headers={"X-Request-Id": "r3"})
    server.get("/health")
    records = [record for record in caplog.records if record.name == "frontend.access"]
    assert [record.request for record in records] == ["r1", "r2", "r3"]  # type: ignore[attr-defined]
    assert "generated_tokens=3" in records[0].getMessage()
    assert "generated_tokens=3" in records[1].getMessage()
    assert "status=422" in records[2].getMessage()
    assert "error=validation" in records[2].getMessage()
    assert "secret" not in caplog.text


@pytest.mark.parametrize("path", ["/", "/health", "/health/progress", "/ping", "/metrics"])
def test_probes_are_logged_when_they_fail(
    server: Server, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.get(path)
    assert caplog.text == ""
    server.pipeline.clock.now += 1000.0  # type: ignore[attr-defined]
    server.pipeline.link.scrape = lambda timeout_s: None  # type: ignore[method-assign]
    assert server.get(path, headers={"X-Request-Id": "r1"}).status_code == 503
    assert f"request=r1 method=GET path={path} status=503 " in caplog.text


def test_a_client_cannot_forge_a_line_of_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.get("/x%0aFAKE%20status=200%1b%5b31m\u2028", headers={"X-Request-Id": "r1"})
    server.get("/" + "%0a" * 1000)
    lines = [r.getMessage() for r in caplog.records if r.name == "frontend.access"]
    assert lines[0].startswith(
        "request=r1 method=GET path=/x%0AFAKE%20status%3D200%1B%5B31m%E2%80%A8 status=404 "
    )
    assert all(line.isascii() and line.isprintable() for line in lines)
    path = lines[1].split(" path=")[1].split(" ")[0]
    assert len(path) == 200


def test_access_lines_are_flat_json(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.post("/generate", {"inputs": "hello"}, headers={"X-Request-Id": "r1"})
    line = json.loads(JsonFormatter("frontend").format(caplog.records[-1]))
    assert line["request"] == "r1"
    assert (line["method"], line["path"], line["status"]) == ("POST", "/generate", 200)
    assert (line["prompt_tokens"], line["generated_tokens"]) == (2, 3)
    assert line["queue_ms"] == 250.0


def test_traces_are_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trace = "0af7651916cd43dd8448eb211c80319c"
    server.get("/info", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert caplog.records[-1].trace == trace  # type: ignore[attr-defined]
