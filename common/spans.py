"""What is traced: W3C trace contexts, spans, and the message that carries spans to the tracer.

Said by front ends and the scheduler to the tracer, over PUSH/PULL on ``traces``, once per request;
only if ``--otlp-endpoint`` is set. Owns the form of ``traceparent`` (W3C Trace Context, section
3.2). Times are nanoseconds since the epoch. A span never holds text of a prompt or an answer.
"""

import re
import secrets
from typing import Literal, NamedTuple

import msgspec

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_VERSION_0_LENGTH = 55

Attribute = str | int | float | bool


class TraceContext(NamedTuple):
    """A position in a trace: below which span whatever comes next belongs."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits; empty at the root of a trace."""
    is_sampled: bool
    """Whether the spans below are wanted."""

    def header(self) -> str:
        """The value of ``traceparent``."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def parse_traceparent(header: str) -> TraceContext | None:
    """What a client sent, or one process another; None if it is no trace context."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None or (header.startswith("00-") and len(header) != _VERSION_0_LENGTH):
        return None
    return TraceContext(found[1], found[2], bool(int(found[3], 16) & 1))


def new_trace() -> TraceContext:
    """The root of a trace that nobody has begun; sampled."""
    return TraceContext(secrets.token_hex(16), "", is_sampled=True)


def new_span_id() -> str:
    """An id for a span."""
    return secrets.token_hex(8)


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One finished span."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty if it is the root of its trace."""
    name: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Attribute] = {}
    kind: Literal["server", "internal"] = "internal"
    error: str = ""
    """Why it failed; empty if it did not."""


class Spans(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Spans of one request, as far as one process knows them."""

    process: str
    spans: list[Span]
