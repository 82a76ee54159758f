"""What a front end and its checker say to each other over a pair of pipes.

Each message is msgpack behind its length. Used on both sides; knows neither gevent nor llguidance.
"""

import struct
from typing import Protocol, TypeVar

import msgspec

from frontend.guidance.source import GrammarSource

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 4 * 1024 * 1024
"""More than any grammar that is accepted, escaped in every way."""


class Setup(msgspec.Struct, frozen=True):
    """The first message to the checker."""

    tokenizer: str
    """Path of the model's ``tokenizer.json``."""
    end_ids: list[int]
    """Tokens that end an answer."""
    time_s: float
    """Limit of one check."""
    memory_bytes: int
    """Limit of one check, beside what the loaded tokenizer takes."""


class Loaded(msgspec.Struct, frozen=True):
    """The answer to ``Setup``."""

    error: str = ""
    """Why no grammar can be checked, ever."""


class Verdict(msgspec.Struct, frozen=True):
    """The answer to a ``GrammarSource``: the compiled grammar, or what is wrong with it."""

    grammar: str = ""
    error: str = ""
    exhausted: bool = False
    """It was stopped by a limit or broke the checker, and might do better another time."""


class Readable(Protocol):
    """A binary file; ``read`` waits for as many bytes as it is asked for, or for the end."""

    def read(self, size: int, /) -> bytes | None:
        """Fewer bytes only at the end."""
        ...


class Writable(Protocol):
    """A binary file."""

    def write(self, data: bytes, /) -> object:
        """Take all of it."""
        ...

    def flush(self) -> None:
        """Pass on what was taken."""
        ...


class PeerLostError(Exception):
    """The other side is gone, or does not speak this language."""


Message = Setup | Loaded | Verdict | GrammarSource
T = TypeVar("T", Setup, Loaded, Verdict, GrammarSource)


def frame(message: Message) -> bytes:
    """A message as it travels."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def send(file: Writable, message: Message) -> None:
    """Write a message. Raises OSError."""
    file.write(frame(message))
    file.flush()


def receive(file: Readable, kind: type[T]) -> T:
    """Read a message. Raises PeerLostError."""
    head = file.read(_LENGTH.size) or b""
    if len(head) != _LENGTH.size:
        raise PeerLostError
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise PeerLostError
    body = file.read(length) or b""
    if len(body) != length:
        raise PeerLostError
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError:
        raise PeerLostError from None
