"""Reads the body of an answer as it comes: what was sent in chunks, or as it is.

PERF: once per event, and on a machine that is measured the client takes time from the server. The
standard library reads a chunk in five steps, three of them through its buffer; here a read that
brings whole chunks is cut up at once.
"""

import http.client
from collections.abc import Callable, Iterator

READ_BYTES = 1 << 16
_MOST_SIZE_LINE = 1000
"""Bytes of a chunk's size and its extensions."""


def pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """What has come, as soon as it has. Raises OSError, HTTPException."""
    if answer.chunked and answer.fp is not None:
        return unchunked(lambda: answer.fp.read1(READ_BYTES))
    return iter(lambda: answer.read1(READ_BYTES), b"")


def unchunked(read: Callable[[], bytes]) -> Iterator[bytes]:
    """The data in chunks (RFC 9112, 7.1), up to the last of them; ``read`` gives what there is.

    Raises IncompleteRead if it ends before, HTTPException for what are no chunks.
    """
    rest = b""
    while True:
        more = read()
        if not more:
            raise http.client.IncompleteRead(rest)
        data, rest, is_last = _cut(rest + more)
        if data:
            yield data
        if is_last:
            return


def _cut(received: bytes) -> tuple[bytes, bytes, bool]:
    """The data of whole chunks, what is left after them, and whether the last chunk was there."""
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = received.find(b"\r\n", at)
        if line_end < 0:
            if len(received) - at > _MOST_SIZE_LINE:
                raise http.client.HTTPException("the size of a chunk is too long")
            break
        size = _size(received[at:line_end])
        if size == 0:
            return b"".join(parts), b"", True
        end = line_end + 2 + size
        if len(received) < end + 2:
            break
        if received[end : end + 2] != b"\r\n":
            raise http.client.HTTPException("a chunk does not end where it said")
        parts.append(received[line_end + 2 : end])
        at = end + 2
    return b"".join(parts), received[at:], False


def _size(line: bytes) -> int:
    digits = line.split(b";", 1)[0].strip()
    try:
        size = int(digits, 16)
    except ValueError:
        size = -1
    if size < 0 or not digits.isalnum():
        raise http.client.HTTPException(f"no size of a chunk: {digits[:20]!r}")
    return size
