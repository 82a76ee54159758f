"""Bodies: content type, size, time, syntax."""

import gzip
import io
from typing import Any

import falcon
import falcon.testing
import gevent
import pytest

from common.errors import ErrorKind, RequestError
from frontend import body as module
from frontend import exchange
from frontend.body import leave_unread, parse_json, read_json
from frontend.nesting import MAX_DEPTH
from frontend.unanswered import Unanswered


class Input:
    """A body that counts how much of it was read, as the server's object for it."""

    def __init__(self, data: bytes, *, fails: bool = False, waits: bool = False) -> None:
        self.data = io.BytesIO(data)
        self.read_bytes = 0
        self.failed = False
        self.fails = fails
        self.waits = waits

    def read(self, size: int) -> bytes:
        if self.fails:
            raise ValueError("not a chunk")
        if self.waits:
            gevent.sleep(10)
        part = self.data.read(size)
        self.read_bytes += len(part)
        return part


def request(
    data: Input, *, length: int | None = None, content_type: str | None = "application/json"
) -> falcon.Request:
    environ: dict[str, Any] = falcon.testing.create_environ(method="POST", path="/")
    environ.pop("CONTENT_LENGTH", None)
    environ.pop("CONTENT_TYPE", None)
    if content_type is not None:
        environ["CONTENT_TYPE"] = content_type
    if length is None:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(length)
    environ["wsgi.input"] = data
    made = falcon.Request(environ)
    exchange.begin(made, 0.0, 0.0)
    return made


def kind(call: Any) -> ErrorKind:
    with pytest.raises(RequestError) as caught:
        call()
    assert caught.value.message
    return caught.value.kind


def test_with_and_without_a_length() -> None:
    data = b'{"a": 1}'
    assert read_json(request(Input(data), length=len(data)), 100) == {"a": 1}
    assert read_json(request(Input(data)), 100) == {"a": 1}
    assert read_json(request(Input(data)), len(data)) == {"a": 1}


def test_a_pipelined_request_is_not_read() -> None:
    data = Input(b'{"a": 1}POST / HTTP/1.1')
    assert read_json(request(data, length=8), 100) == {"a": 1}
    assert data.read_bytes == 8


def test_too_large_with_a_length_reads_nothing() -> None:
    data = Input(b"x" * 1000)
    assert kind(lambda: read_json(request(data, length=1000), 999)) is ErrorKind.TOO_LARGE
    assert data.read_bytes == 0
    assert data.failed


def test_too_large_in_chunks_reads_up_to_the_limit() -> None:
    data = Input(b"x" * 1_000_000)
    assert kind(lambda: read_json(request(data), 1000)) is ErrorKind.TOO_LARGE
    assert data.read_bytes == 1001
    assert data.failed


def test_bodies_that_nobody_wanted() -> None:
    """Small ones are skipped by the server; the rest of a large one is not waited for."""
    for length, failed in ((1000, False), (100_000, True), (None, True)):
        data = Input(b"")
        leave_unread(request(data, length=length))
        assert data.failed is failed


def test_broken_chunks_and_short_bodies() -> None:
    broken = Input(b"", fails=True)
    assert kind(lambda: read_json(request(broken), 1000)) is ErrorKind.MALFORMED
    assert broken.failed
    short = Input(b'{"a"')
    assert kind(lambda: read_json(request(short, length=8), 1000)) is ErrorKind.MALFORMED


def test_a_body_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_LIMIT_S", 0.01)
    slow = Input(b"{}", waits=True)
    assert kind(lambda: read_json(request(slow, length=2), 1000)) is ErrorKind.TIMEOUT
    assert slow.failed


def test_a_body_that_is_not_waited_for_any_more() -> None:
    unanswered = Unanswered()
    slow = Input(b"{}", waits=True)

    def read() -> ErrorKind:
        with unanswered:
            return kind(lambda: read_json(request(slow, length=2), 1000))

    reading = gevent.spawn(read)
    gevent.idle()
    unanswered.fail_all(RequestError(ErrorKind.UNAVAILABLE, "The server is shutting down"))
    assert reading.get(timeout=5) is ErrorKind.UNAVAILABLE
    assert slow.failed


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/ld+json",
        "Application/JSON",
    ],
)
def test_json_content_types(content_type: str) -> None:
    assert read_json(request(Input(b"{}"), content_type=content_type), 10) == {}


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "text/x+json", "application/xml"])
def test_other_content_types(content_type: str | None) -> None:
    call = lambda: read_json(request(Input(b"{}"), content_type=content_type), 10)  # noqa: E731
    assert kind(call) is ErrorKind.MEDIA_TYPE


@pytest.mark.parametrize(
    ("name", "codings"),
    [
        ("Content-Encoding", "gzip"),
        ("Transfer-Encoding", "gzip, chunked"),
        ("Transfer-Encoding", "Deflate,Chunked"),
    ],
)
def test_compressed_bodies_are_named_as_such(name: str, codings: str) -> None:
    made = request(Input(gzip.compress(b"{}")))
    made.env[f"HTTP_{name.upper().replace('-', '_')}"] = codings
    with pytest.raises(RequestError, match=f"must not be compressed.*{name}") as caught:
        read_json(made, 100)
    assert caught.value.kind is ErrorKind.MEDIA_TYPE


@pytest.mark.parametrize("codings", ["chunked", "Chunked", "identity, chunked"])
def test_chunks_are_no_compression(codings: str) -> None:
    made = request(Input(b"{}"))
    made.env["HTTP_TRANSFER_ENCODING"] = codings
    assert read_json(made, 100) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}{}",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00\\ud800"}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"a": "\x00"}',
        b"1" * 5000,
    ],
)
def test_what_is_not_json(data: bytes) -> None:
    assert kind(lambda: parse_json(data)) is ErrorKind.MALFORMED


def test_what_is() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "😀"}
    assert parse_json(b"1" + b"0" * 300) == 10**300
    assert parse_json('{"a": "ü😀"}'.encode()) == {"a": "ü😀"}
    assert parse_json(b'{"a": 18446744073709551615}') == {"a": 2**64 - 1}
    assert parse_json(b'{"b": [{"a": 1, "\\u0061": 2}]}') == {"b": [{"a": 2}]}
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert parse_json(b"[" + b"[]," * 1000 + b"[]]")
    assert parse_json(b"[-%d," % 10**30 + b"[]," * 1000 + b"[]]")[0] == -(10**30)


def test_what_is_nested_too_deeply() -> None:
    assert kind(lambda: parse_json(b"[" * 100_000)) is ErrorKind.VALIDATION
    for depth in (MAX_DEPTH + 1, 1000, 100_000):
        assert kind(lambda n=depth: parse_json(b"[" * n + b"]" * n)) is ErrorKind.VALIDATION
        objects = b'{"a":' * depth + b"1" + b"}" * depth
        assert kind(lambda body=objects: parse_json(body)) is ErrorKind.VALIDATION
