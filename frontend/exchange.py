"""What is known about one HTTP request besides its body: ids, times, counts, how it went.

Lives in Falcon's request context. Written by the middleware and the routes, read for the access
log. Holds no text.
"""

import re
import uuid
from dataclasses import dataclass

import falcon

from common.errors import RequestError
from frontend.identity import Identity, new_identity
from frontend.limits import invalid
from frontend.resume.kept import Keeping

TIMEOUT_HEADERS = (
    ("X-Request-Timeout", "seconds", 1.0),
    ("X-Request-Timeout-Ms", "milliseconds", 1000.0),
)
"""After how long the client wants no answer any more: name, unit, and units in a second."""
MOST_TIMEOUT_S = 1e6
CLIENT_GONE_STATUS = 499

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


@dataclass
class Exchange:
    """One request and its answer."""

    request_id: str
    trace_id: str | None
    began: float
    """By the services' clock."""
    identity: Identity
    """What names the answer."""
    body_read: bool = False
    """Whether the body was read, as far as it may be."""
    generates: bool = False
    """Whether it asks for text: such requests are counted."""
    counted: bool = False
    """Whether it is in ``tgi_request_count``."""
    streams: bool = False
    """Whether the answer is an event stream, which is logged when it ends."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    queue_s: float | None = None
    error: str | None = None
    """``error_type`` of what went wrong."""
    status: int = 0
    keeps_body: bool = False
    """Whether the body is needed as it came: its stream may be kept."""
    body: bytes = b""
    kept_body: bytes | None = None
    """That of the stream which the client takes up again."""
    keeping: Keeping | None = None
    """How the stream is kept, once that is known."""


def begin(req: falcon.Request, now: float, wall_now: float) -> Exchange:
    """The record of a new request; its id is the client's if that is a sane one."""
    given = req.get_header("X-Request-Id") or ""
    trace = _TRACEPARENT.fullmatch(req.get_header("traceparent") or "")
    exchange = Exchange(
        request_id=given if _ID.fullmatch(given) else uuid.uuid4().hex,
        trace_id=trace.group(1) if trace else None,
        began=now,
        identity=new_identity(wall_now),
    )
    req.context.exchange = exchange
    return exchange


def of(req: falcon.Request) -> Exchange:
    """The record of a request that the middleware has seen."""
    exchange: Exchange = req.context.exchange
    return exchange


def timeout_s(req: falcon.Request, body_timeout_s: float = 0.0) -> float:
    """The client's own time limit, the smallest of those in headers and body; 0 if it has none.

    ``body_timeout_s`` is the body's, 0 if there is none. Raises RequestError if a header holds no
    positive number.
    """
    found = [body_timeout_s] if body_timeout_s > 0 else []
    for name, unit, per_second in TIMEOUT_HEADERS:
        given = req.get_header(name)
        if given is None:
            continue
        seconds = float(given) / per_second if _NUMBER.fullmatch(given) else 0.0
        if not 0.0 < seconds <= MOST_TIMEOUT_S:
            raise invalid(f"the header {name} must be a positive number of {unit}")
        found.append(seconds)
    return min(found, default=0.0)


def failed(exchange: Exchange, error: RequestError) -> None:
    """Remember what went wrong."""
    exchange.error = error.kind.error_type
    exchange.status = error.kind.http_status
