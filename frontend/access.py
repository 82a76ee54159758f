"""The access log: one line per answered request, when it is over. Counts and times, no text."""

import logging
import sys
from urllib.parse import quote

import falcon
import orjson

from common.logs import JsonFormatter
from frontend import exchange

MAX_LOGGED = 200
"""Characters of a client's own words in a line."""
_PLAIN = "/:@!$&'()*+,;~"
"""What stays as it is in paths, besides letters, digits and ``_.-``."""

_log = logging.getLogger("frontend.access")


class AccessFormatter(JsonFormatter):
    """One flat JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The common fields, then those of the request."""
        line = orjson.loads(super().format(record))
        line.update(getattr(record, "fields", {}))
        return orjson.dumps(line).decode()


def set_up(*, json_output: bool) -> None:
    """Called once per process; without JSON the lines go where all others go."""
    if json_output:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(AccessFormatter("frontend"))
        _log.handlers = [handler]
        _log.propagate = False


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
    if record.trace_id is not None:
        extra["trace"] = record.trace_id
    shown = {"request": record.request_id, **fields}
    message = " ".join(f"{name}={value}" for name, value in shown.items())
    _log.info("%s", message, extra=extra)


def _quoted(text: str) -> str:
    """What a client wrote, unable to forge a line or a field of one."""
    return quote(text[:MAX_LOGGED], safe=_PLAIN, errors="replace")[:MAX_LOGGED]
