"""Bodies that were sent in chunks, however they are cut on their way."""

import http.client
import random

import pytest

from launcher.bench.body import unchunked


def whole(*received: bytes) -> bytes:
    reads = iter([*received, b""])
    return b"".join(unchunked(lambda: next(reads)))


def test_chunks_are_cut_anywhere() -> None:
    rng = random.Random(0)
    for _ in range(200):
        parts = [rng.randbytes(rng.randrange(1, 40)) for _ in range(rng.randrange(1, 6))]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        cuts = sorted(rng.sample(range(1, len(sent)), 3))
        pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
        assert whole(*pieces) == b"".join(parts)


def test_extensions_and_capitals() -> None:
    assert whole(b"A;name=value\r\n0123456789\r\n0\r\n\r\n") == b"0123456789"


def test_data_is_there_as_soon_as_its_chunk_is() -> None:
    reads = iter([b"1\r\na\r\n1\r\nb", b"\r\n0\r\n\r\n"])
    pieces = unchunked(lambda: next(reads))
    assert next(pieces) == b"a"
    assert next(pieces) == b"b"


@pytest.mark.parametrize("received", [b"", b"5\r\nab", b"1\r\na\r\n", b"1\r\na\r\n0"])
def test_what_breaks_off(received: bytes) -> None:
    with pytest.raises(http.client.IncompleteRead):
        whole(received)


@pytest.mark.parametrize(
    "received", [b"x\r\n", b"-1\r\n", b"+1\r\na\r\n", b"\r\n", b"1\r\nabc", b"1" * 2000]
)
def test_what_are_no_chunks(received: bytes) -> None:
    with pytest.raises(http.client.HTTPException):
        whole(received)
