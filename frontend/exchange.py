"""What is known about one HTTP request besides its body: ids, times, counts, how it went.

Lives in Falcon's request context. Written by the middleware and the routes, read for the access
log. Holds no text.
"""

import re
import uuid
from dataclasses import dataclass

import falcon

from common.errors import RequestError
from frontend.limits import invalid

TIMEOUT_HEADER = "X-Request-Timeout"
"""Seconds after which the client wants no answer any more."""
CLIENT_GONE_STATUS = 499

_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")


@dataclass
class Exchange:
    """One request and its answer."""

    request_id: str
    trace_id: str | None
    began: float
    """By the services' clock."""
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
    """``err`` label of what went wrong."""
    status: int = 0


def begin(req: falcon.Request, now: float) -> Exchange:
    """The record of a new request; its id is the client's if that is a sane one."""
    given = req.get_header("X-Request-Id") or ""
    trace = _TRACEPARENT.fullmatch(req.get_header("traceparent") or "")
    exchange = Exchange(
        request_id=given if _ID.fullmatch(given) else uuid.uuid4().hex,
        trace_id=trace.group(1) if trace else None,
        began=now,
    )
    req.context.exchange = exchange
    return exchange


def of(req: falcon.Request) -> Exchange:
    """The record of a request that the middleware has seen."""
    exchange: Exchange = req.context.exchange
    return exchange


def timeout_s(req: falcon.Request) -> float:
    """The client's own time limit; 0 if it has none. Raises RequestError if it is no number."""
    given = req.get_header(TIMEOUT_HEADER)
    if given is None:
        return 0.0
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 1e6:
        raise invalid(f"the header {TIMEOUT_HEADER} must be a positive number of seconds")
    return seconds


def failed(exchange: Exchange, error: RequestError) -> None:
    """Remember what went wrong."""
    exchange.error = error.kind.metric
    exchange.status = error.kind.http_status
