"""What a client reads when its request fails: one place that turns errors into bytes.

TGI's shape is ``{"error": text, "error_type": type}``; the routes under ``/v1`` answer OpenAI's
object in ``error``, with TGI's ``error_type`` beside it, which both families of clients accept.
"""

import math

import orjson

from common.errors import ErrorKind, RequestError

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

_OPENAI_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


def is_openai(path: str) -> bool:
    """Whether a path belongs to the OpenAI surface."""
    return path.startswith("/v1/")


def error_document(
    message: str, error_type: str, status: int, *, openai: bool
) -> dict[str, object]:
    """The body of an error; ``error`` is its first key."""
    if not openai:
        return {"error": message, "error_type": error_type}
    default = "invalid_request_error" if status < 500 and status != 424 else "server_error"
    return {
        "error": {
            "message": message,
            "type": _OPENAI_TYPES.get(status, default),
            "code": error_type,
            "param": None,
            "http_status_code": status,
        },
        "error_type": error_type,
    }


def request_error_document(error: RequestError, *, openai: bool) -> dict[str, object]:
    """The body of a request's own error."""
    kind = error.kind
    return error_document(error.message, kind.error_type, kind.http_status, openai=openai)


def retry_after(error: RequestError) -> str | None:
    """The Retry-After header in whole seconds, if the error has one."""
    if error.retry_after_s is None:
        return None
    return str(max(1, math.ceil(error.retry_after_s)))


def event(document: object) -> bytes:
    """One SSE event."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def native_stream_error(error: RequestError) -> bytes:
    """The event that ends a native stream."""
    message, error_type = error.message, error.kind.error_type
    if error.kind is ErrorKind.INCOMPLETE:
        message, error_type = f"{message} stream", f"{error_type}_stream"
    return event({"error": message, "error_type": error_type})
