"""What is told of an answered request when it is over: one line in the log, and its spans.

Counts and times, no text.
"""

import logging
from urllib.parse import quote

import falcon

from frontend import exchange
from frontend.services import Services

MAX_LOGGED = 200
"""Characters of a client's own words in a line."""
_PLAIN = "/:@!$&'()*+,;~"
"""What stays as it is in paths, besides letters, digits and ``_.-``."""

_log = logging.getLogger("frontend.access")


def over(req: falcon.Request, services: Services) -> None:
    """A request is over."""
    now = services.clock()
    log(req, now)
    if services.tracer is not None:
        services.tracer.finish(exchange.of(req), req.method, req.uri_template or "", now)


def log(req: falcon.Request, now: float) -> None:
    """Write the line of a request that is over."""
    if not _log.isEnabledFor(logging.INFO):
        return
    record = exchange.of(req)
    fields: dict[str, object] = {
        "method": _quoted(req.method),
        "path": _quoted(req.path),
        "status": record.status,
        "total_ms": round((now - record.began) * 1000, 1),
    }
    if record.queue_s is not None:
        fields["queue_ms"] = round(record.queue_s * 1000, 1)
    if record.generates:
        fields["prompt_tokens"] = record.prompt_tokens
        fields["generated_tokens"] = record.generated_tokens
    if record.error is not None:
        fields["error"] = record.error
    extra: dict[str, object] = {"request": record.request_id, "fields": fields}
    if record.trace is not None:
        extra["trace"] = record.trace.trace_id
    shown = {"request": record.request_id, **fields}
    message = " ".join(f"{name}={value}" for name, value in shown.items())
    _log.info("%s", message, extra=extra)


def _quoted(text: str) -> str:
    """What a client wrote, unable to forge a line or a field of one."""
    return quote(text[:MAX_LOGGED], safe=_PLAIN, errors="replace")[:MAX_LOGGED]
