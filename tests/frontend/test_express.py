"""Events that leave from where tokens are received: the same bytes in the same order, always."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from bench.stream_client import unchunked
from common.errors import ErrorKind, RequestError
from common.messages import Cancel, Tokens
from common.sampling import SamplingParameters
from frontend.express import Connection, Express, Outbox, connection_of
from frontend.generation import Generation
from frontend.runs import Order, Plan, Run, Token
from frontend.sse import KEEP_ALIVE, EventStream
from frontend.text.tokenizer import Tokenizer
from tests.frontend.fakes import Pipeline, Plain
from worker.reports import following

TEXT = " hello world wörld stop here test"


class Client:
    """A connection, and what gunicorn does with the body of an answer."""

    def __init__(self, takes: Callable[[int], int] = lambda count: count) -> None:
        """``takes`` says how many of so many bytes are taken at once."""
        self.received = b""
        self.offers = 0
        self.pieces = 0
        self.error: OSError | None = None
        self._takes = takes

    def offer(self, data: bytes) -> int:
        self.offers += 1
        count = self._takes(len(data))
        self.received += data[:count]
        return count

    def sendall(self, data: bytes) -> None:
        gevent.sleep(0.001)
        if self.error is not None:
            raise self.error
        self.received += data

    def write(self, stream: EventStream) -> None:
        try:
            for item in stream:
                if item:
                    self.pieces += 1
                    self.received += b"%X\r\n%b\r\n" % (len(item), item)
            self.received += b"0\r\n\r\n"
        finally:
            stream.close()

    @property
    def body(self) -> bytes:
        return unchunked(b"HTTP/1.1 200 OK\r\n\r\n" + self.received)


class Receiver(Pipeline):
    """Says what is plain in columns, as workers do, and flushes as the wires do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.outbox = Outbox()
        deliver = self.link.tokens

        def tokens(message: Any) -> None:
            others, rest = following(message.items)
            deliver(Tokens(message.incarnation, message.step, others, rest))
            self.outbox.flush()

        self.link.tokens = tokens  # type: ignore[method-assign]


@pytest.fixture
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.load(str(model_dir))


def answer(
    tokenizer: Tokenizer,
    client: Client | None,
    dialect: Any = None,
    count: int = 1,
    keep_alive_s: float = 15.0,
    **order: Any,
) -> tuple[EventStream, Receiver, list[Any]]:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    pipe = Receiver(tokenizer, lambda spec: ids, pause_s=order.pop("pause_s", 0.0))
    plan = Plan([1], 50, SamplingParameters(), tokenizer.stop_token_ids)
    order = {"stops": [], **order}
    made = Generation(
        Order([plan] * count, **order), pipe.link, tokenizer, pipe.clock, pipe.clock()
    )
    made.start()
    express = None if client is None else Express(client, pipe.outbox)
    closed: list[Any] = []
    stream = EventStream(made, dialect or Plain(), closed.append, keep_alive_s, express)
    return stream, pipe, closed


def plain(tokenizer: Tokenizer, **order: Any) -> bytes:
    stream, _, _ = answer(tokenizer, None, **order)
    return b"".join(stream)


def test_what_is_plain_leaves_at_once(tokenizer: Tokenizer) -> None:
    client = Client()
    stream, pipe, closed = answer(tokenizer, client)
    client.write(stream)
    assert client.body == plain(tokenizer)
    assert client.pieces == 2, "the first and the last event"
    assert client.offers > 10
    assert closed == [None]
    pipe.check_released(success=True)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_client_takes_it_reads_the_same(tokenizer: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    client = Client(lambda count: rng.choice([count, count, 0, rng.randrange(count)]))
    stream, pipe, _ = answer(tokenizer, client, pause_s=rng.choice([0.0, 0.0005]))
    client.write(stream)
    assert client.body == plain(tokenizer)
    pipe.check_released(success=True)


@pytest.mark.parametrize("order", [{"stops": ["stop"]}, {"count": 2}])
def test_what_is_not_plain_is_left_to_the_request(tokenizer: Tokenizer, order: Any) -> None:
    client = Client()
    stream, _, _ = answer(tokenizer, client, **order)
    client.write(stream)
    assert client.offers == 0
    assert client.body == plain(tokenizer, **order)


def test_a_broken_connection_ends_its_own_stream(tokenizer: Tokenizer) -> None:
    client = Client(lambda count: 0)
    client.error = BrokenPipeError()
    stream, pipe, closed = answer(tokenizer, client, pause_s=0.002)
    with pytest.raises(BrokenPipeError):
        client.write(stream)
    assert len(closed) == 1
    assert [message.reason for message in pipe.of(Cancel)] == ["client_gone"]
    pipe.check_released(success=False)


def test_a_mistake_of_ours_is_an_event(tokenizer: Tokenizer) -> None:
    class Breaks(Plain):
        def tokens(self, run: Run, tokens: list[Token]) -> bytes:
            if run.generated_tokens > 3:
                raise ValueError("quotes the secret text")
            return super().tokens(run, tokens)

    client = Client()
    stream, pipe, _ = answer(tokenizer, client, Breaks())
    client.write(stream)
    assert client.body.endswith(b"!incomplete_generation.")
    assert client.offers == 2
    pipe.check_released()


def test_an_error_comes_behind_what_was_begun(tokenizer: Tokenizer) -> None:
    """The rest of a chunk goes first, then what was made since, then the error."""
    client = Client(lambda count: 1)
    stream, pipe, _ = answer(tokenizer, client, pause_s=0.005)
    error = RequestError(ErrorKind.UNAVAILABLE, "going down")
    gevent.spawn_later(0.03, pipe.link.fail_all, error)
    client.write(stream)
    told, found, rest = client.body.partition(b"!unavailable.")
    assert (found, rest) == (b"!unavailable.", b"")
    assert plain(tokenizer).startswith(told)
    assert told


def test_a_comment_comes_only_after_silence(tokenizer: Tokenizer) -> None:
    client = Client()
    stream, _, _ = answer(tokenizer, client, keep_alive_s=0.05, pause_s=0.01)
    client.write(stream)
    assert KEEP_ALIVE not in client.body
    silent = Client()
    stream, _, _ = answer(tokenizer, silent, keep_alive_s=0.002, pause_s=0.01)
    silent.write(stream)
    assert silent.body.replace(KEEP_ALIVE, b"") == plain(tokenizer)
    assert silent.body.count(KEEP_ALIVE) > 5


def test_nothing_is_sent_behind_the_end(tokenizer: Tokenizer) -> None:
    """The outbox may still name a stream whose client has gone."""
    client = Client()
    outbox = Outbox()
    express = Express(client, outbox)
    express.put(b"a")
    express.drop()
    outbox.flush()
    assert (client.received, express.settle()) == (b"", None)


def test_whoever_comes_first_sends_all() -> None:
    client = Client()
    outbox = Outbox()
    express = Express(client, outbox)
    express.put(b"a")
    express.put(b"b")
    assert express.settle() == b"ab"
    outbox.flush()
    assert client.received == b""
    express.put(b"c")
    express.put(b"d")
    outbox.flush()
    assert client.received == b"2\r\ncd\r\n"


def test_only_chunks_can_be_written_past_the_server() -> None:
    client: Connection = Client()
    environ = {"gunicorn.socket": client, "SERVER_PROTOCOL": "HTTP/1.1"}
    assert connection_of(environ) is client
    assert connection_of({**environ, "SERVER_PROTOCOL": "HTTP/1.0"}) is None
    assert connection_of({**environ, "SERVER_PROTOCOL": "HTTP/2"}) is None
    assert connection_of({**environ, "gunicorn.socket": object()}) is None
    assert connection_of({}) is None
