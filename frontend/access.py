"""The access log: one line per answered request, when it is over. Counts and times, no text."""

import logging
import sys

import falcon
import orjson

from common.logs import JsonFormatter
from frontend import exchange

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
        "method": req.method,
        "path": req.path,
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
    message = " ".join(f"{name}={value}" for name, value in fields.items())
    _log.info("%s", message, extra=extra)
