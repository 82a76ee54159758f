"""Which API a path belongs to, and what an error document looks like in each.

The one table of both; used by the middleware, by ``handlers.py``, and by the event streams. Knows
no requests: a path or a surface goes in, a JSON object comes out.
"""

import re
from enum import Enum
from typing import Any


class Surface(Enum):
    """The APIs that are spoken here."""

    NATIVE = "tgi"
    """``{"error": text, "error_type": type}``; also of the platforms' single routes."""
    OPENAI = "openai"
    """OpenAI's object in ``error``, with TGI's ``error_type`` beside it, which both families of
    clients accept."""
    ANTHROPIC = "anthropic"
    """Anthropic's object, with the id of the request."""
    KSERVE = "kserve"
    """``{"error": text}``."""


_PREFIXES = (
    ("/v1/messages", Surface.ANTHROPIC),
    ("/v1", Surface.OPENAI),
    ("/v2", Surface.KSERVE),
)
"""The first that is the path, or a folder above it, counts."""

_AS_TGI = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Of these routes TGI's dialect has the native errors."""

_OPENAI_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    424: "api_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_PATH = re.compile(r" at `\$\.([^`\s]+)`")
_FIELD = re.compile(r"(?<!Expected )(?<!, got )`([A-Za-z_][^`\s]*)`")
"""A name that does not stand for a type, as in "Expected `int`, got `str`"."""


def surface_of(path: str, *, as_tgi: bool = False) -> Surface:
    """The API that a path belongs to; what belongs to none is answered as by TGI.

    ``as_tgi``: whether the server speaks TGI's dialect where it may.
    """
    if as_tgi and path in _AS_TGI:
        return Surface.NATIVE
    for prefix, surface in _PREFIXES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return surface
    return Surface.NATIVE


def error_document(
    message: str, error_type: str, status: int, surface: Surface, request_id: str | None = None
) -> dict[str, Any]:
    """The body of an error.

    ``error`` is the first key but on Anthropic's surface: there are clients that look only at the
    beginning of an event. ``error_type`` is TGI's word for the kind; ``request_id`` is told only
    where the surface has a place for it.
    """
    match surface:
        case Surface.OPENAI:
            return {
                "error": _openai(message, error_type, status),
                "error_type": error_type,
            }
        case Surface.ANTHROPIC:
            default = "invalid_request_error" if status < 500 else "api_error"
            error = {"type": _ANTHROPIC_TYPES.get(status, default), "message": message}
            return {"type": "error", "error": error, "request_id": request_id}
        case Surface.KSERVE:
            return {"error": message}
        case Surface.NATIVE:
            return {"error": message, "error_type": error_type}


def _openai(message: str, error_type: str, status: int) -> dict[str, Any]:
    """``param`` is the field that the message tells the path of, or the one it names first."""
    is_theirs = status < 500 and status != 424
    field = (_PATH.search(message) or _FIELD.search(message)) if is_theirs else None
    default = "invalid_request_error" if is_theirs else "server_error"
    return {
        "message": message,
        "type": _OPENAI_TYPES.get(status, default),
        "code": error_type,
        "param": field[1] if field else None,
        "http_status_code": status,
    }
