"""Headers of requests and answers: ids, time limits, how busy the server is."""

from pathlib import Path

import pytest

from common.messages import PROTOCOL_VERSION, Accepted, Ended, Rejected, Status, Submit
from tests.frontend.fakes import Server, events, serve
from tests.frontend.wire import Wire

BODY = {"inputs": "a"}
LIMIT = "x-ratelimit-limit-requests"
REMAINING = "x-ratelimit-remaining-requests"
RESET = "x-ratelimit-reset-requests"


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_ids_of_requests_to_anthropics_routes(server: Server) -> None:
    answer = server.get("/v1/messages/x", headers={"X-Request-Id": "abc"})
    assert (answer.headers["request-id"], answer.headers["x-request-id"]) == ("abc", "abc")
    assert "request-id" not in server.get("/info").headers


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"X-Request-Timeout": "2.5"}, 2.5),
        ({"X-Request-Timeout-Ms": "1500"}, 1.5),
        ({"X-Request-Timeout": "1", "X-Request-Timeout-Ms": "1500"}, 1.0),
        ({"X-Request-Timeout": "2", "X-Request-Timeout-Ms": "2.5"}, 0.0025),
    ],
)
def test_time_limits(server: Server, headers: dict[str, str], seconds: float) -> None:
    server.post("/generate", BODY, headers=headers)
    assert server.pipeline.of(Submit)[-1].timeout_s == pytest.approx(seconds)


def test_a_time_limit_counts_from_the_arrival_of_the_request(server: Server) -> None:
    encode = server.services.tokenizer.encode

    def slow(text: str, *, add_special_tokens: bool) -> list[int]:
        server.pipeline.clock.now += 2.0  # type: ignore[attr-defined]
        return encode(text, add_special_tokens=add_special_tokens)

    server.services.tokenizer.encode = slow  # type: ignore[method-assign]
    server.post("/generate", BODY, headers={"X-Request-Timeout": "5"})
    assert server.pipeline.of(Submit)[-1].timeout_s == pytest.approx(3.0)
    answer = server.post("/generate", BODY, headers={"X-Request-Timeout": "1"})
    assert answer.status_code == 408
    assert 0.0 < server.pipeline.of(Submit)[-1].timeout_s < 0.1


@pytest.mark.parametrize("name", ["X-Request-Timeout", "X-Request-Timeout-Ms"])
@pytest.mark.parametrize("bad", ["", "x", "0", "-1", "nan", "inf", "1_0", "1e3", "9" * 12, "٣"])
def test_bad_time_limits(server: Server, name: str, bad: str) -> None:
    sent = bad.encode().decode("latin-1")
    answer = server.post("/generate", BODY, headers={name: sent})
    assert answer.status_code == 422
    assert f"the header {name} must be a positive number of " in answer.json["error"]


def test_how_busy_the_server_is(model_dir: Path) -> None:
    server = serve(model_dir, max_concurrent_requests=10)
    server.pipeline.link.receive(
        Status(version=PROTOCOL_VERSION, epoch=1, waiting=3, running=4, replicas=[])
    )
    for path in ("/generate", "/generate_stream"):
        headers = server.post(path, BODY).headers
        assert (headers[LIMIT], headers[REMAINING], headers[RESET]) == ("10", "3", "1s")
    for path in ("/info", "/health", "/nothing"):
        assert LIMIT not in server.get(path).headers
    # Sequences that are being cancelled run, too.
    server.pipeline.link.receive(
        Status(version=PROTOCOL_VERSION, epoch=1, waiting=3, running=9, replicas=[])
    )
    assert server.post("/generate", BODY).headers[REMAINING] == "0"


def test_a_refused_request_learns_when_to_come_back(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(submit.spec.id, submit.attempt, "overloaded", retry_after_s=6.2)
    ]
    answer = server.post("/generate", BODY)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert (answer.headers[REMAINING], answer.headers[RESET]) == ("0", "7s")


def test_nothing_is_said_of_a_scheduler_that_is_silent(server: Server) -> None:
    server.pipeline.clock.now += 60.0  # type: ignore[attr-defined]
    answer = server.post("/generate", BODY)
    assert answer.status_code == 503
    assert LIMIT not in answer.headers


def test_a_request_that_waited_too_long(server: Server) -> None:
    def late(submit: Submit) -> list[Accepted | Ended]:
        message = "Model is overloaded: the request was not started within 5 seconds"
        ids = submit.spec.id, submit.attempt
        return [Accepted(*ids), Ended(*ids, "overloaded", message, retry_after_s=3.0)]

    server.pipeline.answer = late  # type: ignore[assignment]
    answer = server.post("/generate", BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json["error_type"] == "overloaded"
    assert "was not started within 5 seconds" in answer.json["error"]
    stream = server.post("/generate_stream", BODY)
    assert stream.status_code == 200
    (event,) = events(stream.content)
    assert event["error_type"] == "overloaded"
    server.pipeline.check_released(success=False)


def test_the_time_to_start_is_told_once() -> None:
    """What is handed in anew may have run before: it waits as long as it has to."""
    wire = Wire(queue_timeout_s=5.0)
    wire.submit()
    wire.status(epoch=2)
    assert [(s.attempt, s.queue_timeout_s) for s in wire.said(Submit)] == [(0, 5.0), (1, 0.0)]
