"""What is known about one HTTP request besides its body: ids, times, counts, how it went.

Lives in Falcon's request context. Written by the middleware and the routes, read for the access
log. Holds no text.
"""

import re
import uuid
from dataclasses import dataclass

import falcon

from common.errors import RequestError
from common.spans import TraceContext, new_span_id, new_trace, parse_traceparent
from frontend.identity import Identity, Origin, new_identity
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


@dataclass
class Exchange:
    """One request and its answer."""

    request_id: str
    trace: TraceContext | None
    """Where the client's trace stands, or a new one while traces are sent."""
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
    span_id: str = ""
    """Of the span of this request; empty if none is wanted."""
    submitted_at: float | None = None
    """When it had been validated and was handed in; None before."""
    sending_at: float | None = None
    """When the first text of the answer was there; None before."""
    keeps_body: bool = False
    """Whether the body is needed as it came: its stream may be kept."""
    body: bytes = b""
    kept_body: bytes | None = None
    """That of the stream which the client takes up again."""
    keeping: Keeping | None = None
    """How the stream is kept, once that is known."""

    @property
    def origin(self) -> Origin:
        """What its sequences carry with them."""
        trace = self.trace
        if trace is not None and self.span_id:
            trace = trace._replace(span_id=self.span_id)
        return Origin(self.request_id, "" if trace is None or not trace.span_id else trace.header())


def begin(req: falcon.Request, now: float, wall_now: float, *, traces: bool = False) -> Exchange:
    """The record of a new request; its id is the client's if that is a sane one.

    ``traces``: whether spans are sent. A trace that its client has not sampled gets none.
    """
    given = req.get_header("X-Request-Id") or ""
    trace = parse_traceparent(req.get_header("traceparent") or "")
    if trace is None and traces:
        trace = new_trace()
    exchange = Exchange(
        request_id=given if _ID.fullmatch(given) else uuid.uuid4().hex,
        trace=trace,
        began=now,
        span_id=new_span_id() if traces and trace is not None and trace.is_sampled else "",
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
