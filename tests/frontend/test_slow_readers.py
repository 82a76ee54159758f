"""Clients that do not read: what waits for them has a limit, and they keep nobody from anything."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import falcon
import falcon.testing
import gevent
import msgspec
import pytest

from common.errors import ErrorKind, RequestError
from common.messages import Cancel, SequenceSpec
from common.sampling import SamplingParameters
from frontend import exchange
from frontend.mailbox import Brim, Mailbox
from frontend.routes import running
from frontend.routes.large import LARGE_CHARACTERS, READ_LIMIT_S, LargeAnswers, Pieces
from frontend.routes.running import TOKEN_BYTES
from frontend.runs import Order, Plan
from frontend.services import Services
from tests.frontend.fakes import Clock, Server, serve
from tests.frontend.wire import item


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def box(brim: Brim | None, *, eager: bool = True) -> Mailbox:
    return Mailbox(
        SequenceSpec(1, [1], 100, SamplingParameters()), lambda: None, eager=eager, brim=brim
    )


def test_what_waits_has_a_limit() -> None:
    spilled: list[int] = []
    made = box(Brim(3, lambda: spilled.append(1)))
    for index in range(3):
        made.put(item(made, index))
    made.take()
    for index in range(3, 6):
        made.put(item(made, index))
    assert spilled == []
    made.put(item(made, 6))
    made.put(item(made, 7))
    assert spilled == [1], "told once"


def test_nothing_is_spilled_without_a_limit() -> None:
    made = box(None, eager=False)
    for index in range(90):
        made.put(item(made, index))
    assert len(made.take()) == 90


def test_a_stream_that_nobody_reads_is_cancelled(server: Server) -> None:
    """The body of the answer is there, and nobody asks for its next piece."""
    buffer = msgspec.structs.replace(server.services.settings, client_buffer=10 * TOKEN_BYTES)
    services = replace(server.services, settings=buffer)
    server.pipeline.reply = lambda spec: [5] * 50
    req, resp = _pair(services)
    plan = Plan([1], 60, SamplingParameters(), [])
    running.run_stream(req, resp, services, Order([plan], []), _Silent())
    for _ in range(200):
        gevent.sleep(0)
    (cancel,) = server.pipeline.of(Cancel)
    assert cancel.reason == "client_gone"
    assert server.pipeline.link.live == 0
    assert exchange.of(req).streams
    assert next(resp.stream) == b""
    with pytest.raises(BrokenPipeError):  # nothing is left to be written
        next(resp.stream)


def test_large_answers_wait_for_a_seat() -> None:
    clock = Clock()
    large = LargeAnswers(clock, most=1)
    assert large.seat(LARGE_CHARACTERS) is None
    first = large.seat(LARGE_CHARACTERS + 1)
    assert first is not None
    with pytest.raises(RequestError) as refused:
        large.seat(LARGE_CHARACTERS + 1, limit_s=0.01)
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert refused.value.retry_after_s
    body = large.stream(iter([b"a", b"b"]), first)
    assert list(body) == [b"a", b"b"]
    body.close()
    body.close()
    assert large.seat(LARGE_CHARACTERS + 1, limit_s=0.01) is not None


def test_a_large_answer_that_is_not_read_ends() -> None:
    clock = Clock()
    body = Pieces(iter([b"a", b"b"]), None, clock)
    assert next(body) == b"a"
    clock.now += READ_LIMIT_S + 1
    with pytest.raises(TimeoutError):
        next(body)


def test_large_texts_are_tokenized_and_give_their_seats_back(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.app.LargeAnswers", partial(LargeAnswers, most=1))
    server = serve(model_dir)
    for _ in range(2):
        answer = server.post("/tokenize", {"inputs": "a " * LARGE_CHARACTERS})
        assert answer.status_code == 200
        assert len(answer.json) > LARGE_CHARACTERS
    server.services.tokenizer.encode_with_offsets = _fails  # type: ignore[method-assign]
    for _ in range(2):
        assert server.post("/tokenize", {"inputs": "a " * LARGE_CHARACTERS}).status_code == 500


def _fails(*_: object, **__: object) -> None:
    raise ValueError


class _Silent:
    def tokens(self, run: object, tokens: object) -> bytes:
        return b"x"

    def failure(self, error: object, run: object = None) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""


def _pair(services: Services) -> tuple[falcon.Request, falcon.Response]:
    req = falcon.Request(falcon.testing.create_environ())
    exchange.begin(req, services.clock(), 0.0)
    return req, falcon.Response()
