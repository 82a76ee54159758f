"""Event streams: keep-alive, one terminal event, one release, clients that leave."""

import socket
from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import ErrorKind, RequestError
from common.messages import Accepted, Cancel
from common.sampling import SamplingParameters
from frontend.generation import Generation
from frontend.runs import Order, Plan, Run, Token
from frontend.sse import KEEP_ALIVE, KEEP_ALIVE_S, EventStream
from frontend.text.tokenizer import Tokenizer
from tests.frontend.fakes import Pipeline, Plain, events, serve


@pytest.fixture
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.load(str(model_dir))


def stream(pipe: Pipeline, dialect: Any = None, **kwargs: Any) -> tuple[EventStream, list[Any]]:
    plan = Plan([1], 50, SamplingParameters(), pipe.tokenizer.stop_token_ids)
    order = Order([plan], [], timeout_s=kwargs.pop("timeout_s", 0.0))
    made = Generation(order, pipe.link, pipe.tokenizer, pipe.clock, pipe.clock())
    made.start()
    closed: list[Any] = []
    return EventStream(made, dialect or Plain(), closed.append, **kwargs), closed


def pipeline(tokenizer: Tokenizer, **kwargs: Any) -> Pipeline:
    ids = tokenizer.encode(" hello world", add_special_tokens=False)
    return Pipeline(tokenizer, lambda spec: ids, **kwargs)


def test_headers_first_then_tokens_then_the_end(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer)
    made, closed = stream(pipe)
    parts = list(made)
    assert parts[0] == b""
    assert all(parts[1:])
    assert b"".join(parts) == b"[ hello][ world][</s>]."
    made.close()
    assert closed == [None]
    pipe.check_released(success=True)
    with pytest.raises(StopIteration):
        next(made)


def test_tokens_of_one_wake_up_are_one_write(tokenizer: Tokenizer) -> None:
    made, _ = stream(pipeline(tokenizer, per_message=10))
    assert list(made) == [b"", b"[ hello][ world][</s>]."]


def test_silence_is_filled_with_comments(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, mute=True)
    made, closed = stream(pipe, keep_alive_s=0.001)
    assert [next(made) for _ in range(3)] == [b"", KEEP_ALIVE, KEEP_ALIVE]
    assert KEEP_ALIVE == b":\n\n"
    made.close()
    assert len(closed) == 1
    assert [m.reason for m in pipe.of(Cancel)] == ["client_gone"]
    pipe.check_released(success=False)
    made.close()
    pipe.check_released(success=False)


def test_the_comment_comes_after_the_silence_of_the_contract(tokenizer: Tokenizer) -> None:
    """15 s, as the contract says: so long a step is asked to wait before it is written."""
    assert KEEP_ALIVE_S == 15.0
    pipe = pipeline(tokenizer, mute=True)
    made, _ = stream(pipe)
    waits: list[float | None] = []

    def silent(timeout_s: float | None = None) -> list[tuple[Run, list[Token]]]:
        waits.append(timeout_s)
        return []

    made._generation.step = silent  # type: ignore[method-assign]
    assert [next(made) for _ in range(3)] == [b"", KEEP_ALIVE, KEEP_ALIVE]
    assert waits == [KEEP_ALIVE_S, KEEP_ALIVE_S]
    made.close()


def test_a_stream_that_never_began_is_released(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, mute=True)
    made, closed = stream(pipe)
    made.close()
    assert len(closed) == 1
    pipe.check_released(success=False)


def test_leaving_ends_the_iteration(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, mute=True)
    made, closed = stream(pipe)
    gevent.spawn_later(0.005, made._generation.client_gone)
    assert next(made) == b""
    with pytest.raises(BrokenPipeError):  # as a failed write: the end of the body is not sent
        next(made)
    assert len(closed) == 1
    pipe.check_released(success=False)


def test_errors_are_the_last_event(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, mute=True)
    made, closed = stream(pipe)
    error = RequestError(ErrorKind.UNAVAILABLE, "going down")
    gevent.spawn_later(0.005, pipe.link.fail_all, error)
    assert list(made) == [b"", b"!unavailable."]
    assert closed == [error]
    pipe.check_released(success=False)


def test_deadline_is_an_event(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, mute=True)
    made, _ = stream(pipe, timeout_s=3.0)
    pipe.clock.now += 3.0  # type: ignore[attr-defined]
    assert list(made) == [b"", b"!timeout."]
    assert [m.reason for m in pipe.of(Cancel)] == ["deadline"]


def test_mistakes_of_ours_are_events_too(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Plain):
        def tokens(self, run: Run, tokens: list[Token]) -> bytes:
            raise ValueError("quotes the secret text")

    pipe = pipeline(tokenizer)
    made, _ = stream(pipe, Broken())
    assert list(made) == [b"", b"!incomplete_generation."]
    assert "secret" not in caplog.text
    pipe.check_released()


def test_native_streams_name_incompleteness(model_dir: Path) -> None:
    server = serve(model_dir)
    server.pipeline.answer = lambda submit: [Accepted(id=submit.spec.id, attempt=0)]

    def fail() -> None:
        error = RequestError(ErrorKind.INCOMPLETE, "Incomplete generation")
        server.pipeline.link.fail_all(error)

    gevent.spawn_later(0.01, fail)
    answer = server.post("/generate_stream", {"inputs": "a"})
    assert events(answer.content) == [
        {"error": "Incomplete generation stream", "error_type": "incomplete_generation_stream"}
    ]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
@pytest.mark.parametrize("accepted", [True, False])
def test_the_socket_is_watched(model_dir: Path, path: str, accepted: bool) -> None:
    server = serve(model_dir)
    server.pipeline.answer = lambda submit: (
        [Accepted(id=submit.spec.id, attempt=0)] if accepted else []
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / pipelined")
        gevent.spawn_later(0.02, theirs.close)
        body = {"inputs": "a"} if "v1" not in path else {"prompt": ["a", "b"]}
        if accepted and path == "/generate_stream":
            with pytest.raises(BrokenPipeError):
                server.post(path, body, extras={"gunicorn.socket": ours})
        else:
            answer = server.post(path, body, extras={"gunicorn.socket": ours})
            assert answer.status_code == 499
    reasons = {m.reason for m in server.pipeline.of(Cancel)}
    assert reasons == {"client_gone"}
    server.pipeline.check_released(success=False)
