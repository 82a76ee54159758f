"""Reads a request's JSON body: content type, size, time limit, syntax.

Never holds more than the size limit in memory, whether or not the client announces a length.
"""

from contextlib import suppress
from typing import Any

import falcon
import gevent
import msgspec
import orjson

from common.errors import ErrorKind, RequestError
from frontend import exchange
from frontend.nesting import MAX_DEPTH, depth_exceeds

READ_LIMIT_S = 60.0
"""A body that is not there after so long ends the request, however steadily it trickles."""
_STEP_BYTES = 65536


def read_json(req: falcon.Request, limit_bytes: int) -> Any:
    """The parsed body. Raises RequestError: MEDIA_TYPE, TOO_LARGE, TIMEOUT, MALFORMED.

    Of a request that takes up a stream it is the stream's, which may be repeated or left out.
    """
    record = exchange.of(req)
    kept = record.kept_body
    if kept is not None and not _is_chunked(req) and not req.content_length:
        record.body_read = True
        return parse_json(kept)
    if not _is_json(req.content_type):
        raise RequestError(
            ErrorKind.MEDIA_TYPE, "The content type of the body must be application/json"
        )
    _refuse_compressed(req)
    record.body_read = True
    body = _read(req, limit_bytes)
    document = parse_json(body)
    if record.keeps_body:
        record.body = body
    if kept is not None and document != parse_json(kept):
        message = "The body is not that of the stream which Last-Event-ID belongs to"
        raise RequestError(ErrorKind.VALIDATION, message)
    return document


def parse_json(body: bytes) -> Any:
    """The parsed document. Raises RequestError (MALFORMED) on anything but one JSON document.

    Refused besides bad syntax: NaN and infinities, lone surrogates. Of a key that an object holds
    twice the last value counts. Integers are what they are, however large: orjson would make floats
    of those beyond 64 bits. Nesting beyond ``MAX_DEPTH`` levels is VALIDATION.
    """
    message = f"The body is nested too deeply: more than {MAX_DEPTH} levels"
    too_deep = RequestError(ErrorKind.VALIDATION, message)
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        raise too_deep from None
    except msgspec.DecodeError as error:
        raise RequestError(ErrorKind.MALFORMED, f"The body is not valid JSON: {error}") from None
    # Most bodies cannot be so deep.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_too_deep(document):
        raise too_deep
    return document


def _is_too_deep(document: Any) -> bool:
    """PERF: writing 2 MB takes 8 ms at most, looking at every container 60."""
    try:
        orjson.dumps(document)
    except orjson.JSONEncodeError:  # or it is for a large integer
        return depth_exceeds(document, MAX_DEPTH)
    return False


def _is_json(content_type: str | None) -> bool:
    essence = (content_type or "").partition(";")[0].strip().lower()
    return essence == "application/json" or (
        essence.startswith("application/") and essence.endswith("+json")
    )


def _refuse_compressed(req: falcon.Request) -> None:
    """Gunicorn undoes chunks, and only them. Raises RequestError (MEDIA_TYPE)."""
    if (req.get_header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise RequestError(
            ErrorKind.MEDIA_TYPE, "The body must not be compressed, and have no Content-Encoding"
        )
    codings = (req.get_header("Transfer-Encoding") or "identity").lower().split(",")
    if not {coding.strip() for coding in codings} <= {"chunked", "identity"}:
        raise RequestError(
            ErrorKind.MEDIA_TYPE,
            "The body must not be compressed, and have no Transfer-Encoding but chunked",
        )


def _read(req: falcon.Request, limit_bytes: int) -> bytes:
    too_large = RequestError(
        ErrorKind.TOO_LARGE, f"The body is larger than the limit of {limit_bytes} bytes"
    )
    length = None if _is_chunked(req) else req.content_length or 0
    if length is not None and length > limit_bytes:
        _leave_unread(req)
        raise too_large
    stream = req.env["wsgi.input"]
    wanted = limit_bytes + 1 if length is None else length
    parts: list[bytes] = []
    try:
        with gevent.Timeout(READ_LIMIT_S):
            while wanted > 0 and (part := stream.read(min(wanted, _STEP_BYTES))):
                parts.append(part)
                wanted -= len(part)
    except gevent.Timeout:
        _leave_unread(req)
        raise RequestError(ErrorKind.TIMEOUT, "The body did not arrive in time") from None
    except RequestError:
        # The server ends, and does not wait for the rest.
        _leave_unread(req)
        raise
    except Exception:
        # A chunk that is none, or a connection that broke: the server closes it afterwards.
        _leave_unread(req)
        raise RequestError(ErrorKind.MALFORMED, "The body could not be read") from None
    if length is None and wanted <= 0:
        _leave_unread(req)
        raise too_large
    if length is not None and wanted > 0:
        raise RequestError(ErrorKind.MALFORMED, "The body ends before its announced length")
    return b"".join(parts)


def leave_unread(req: falcon.Request) -> None:
    """Have the server close the connection instead of reading a body that nobody wanted."""
    if _is_chunked(req) or (req.content_length or 0) > _STEP_BYTES:
        _leave_unread(req)


def _is_chunked(req: falcon.Request) -> bool:
    return "chunked" in req.env.get("HTTP_TRANSFER_ENCODING", "").lower()


def _leave_unread(req: falcon.Request) -> None:
    """Have the server close the connection instead of reading the rest of the body."""
    with suppress(AttributeError):
        req.env["wsgi.input"].failed = True
