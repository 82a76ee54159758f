"""How a request's stream is kept, and how a client with ``Last-Event-ID`` gets its own back.

The scheduler keeps the tokens and, unread, the memo: the body of the request and when it came.
That is all that another front end needs to answer as this one would have. A stream belongs to its
ticket, its path, and the API key that it was asked for with. Runs in front ends.
"""

from hashlib import sha256

import falcon
import msgspec

from common.errors import ErrorKind, RequestError
from frontend import exchange
from frontend.identity import Identity
from frontend.middleware.keys import keys_sent
from frontend.resume.event_ids import Position, Told, parse
from frontend.resume.kept import Keeping, Memo
from frontend.services import Services

HEADER = "Last-Event-ID"
ANSWER_LIMIT_S = 5.0
"""So long may the scheduler take to find a stream."""


def begin(req: falcon.Request, services: Services) -> None:
    """Find the stream that a request wants back, if it wants one, before its body is read.

    Raises RequestError: MALFORMED for what is no event id, GONE for a stream that is not there,
    UNAVAILABLE.
    """
    record = exchange.of(req)
    given = req.get_header(HEADER)
    record.keeps_body = services.settings.sse_event_ids
    if not record.keeps_body or not given:
        return
    asked = parse(given)
    if asked is None:
        message = f"The header {HEADER} holds no event id of this server"
        raise RequestError(ErrorKind.MALFORMED, message)
    ticket, seen = asked
    owner = _owner(req, services)
    found = services.link.resume(ticket, owner, ANSWER_LIMIT_S)
    if found is None:
        message = "The scheduler is not answering"
        raise RequestError(ErrorKind.UNAVAILABLE, message, retry_after_s=1.0)
    if not found.runs:
        raise RequestError(
            ErrorKind.GONE,
            f"The stream of this {HEADER} cannot be taken up: its time is over, it has failed, or "
            "it was not begun with this path and API key",
        )
    if len(found.runs) != len(seen.runs):
        message = f"The header {HEADER} does not fit its stream"
        raise RequestError(ErrorKind.MALFORMED, message)
    memo = msgspec.msgpack.decode(found.memo, type=Memo)
    record.kept_body = memo.body
    record.identity = Identity(ticket, memo.born)
    record.keeping = Keeping(ticket, owner, found.memo, seen, found.runs)


def keeping_of(req: falcon.Request, services: Services, runs: int) -> Keeping | None:
    """How the stream of a request with so many sequences is kept; None if it is not."""
    record = exchange.of(req)
    if not services.settings.sse_event_ids:
        return None
    if record.keeping is None:
        identity = record.identity
        memo = msgspec.msgpack.encode(Memo(record.body, identity.born))
        nothing = Position(tuple(Told() for _ in range(runs)))
        record.keeping = Keeping(identity.seed, _owner(req, services), memo, nothing, [])
        record.body = b""  # the memo has it
    elif len(record.keeping.past) != runs:
        raise RequestError(ErrorKind.GONE, "The stream cannot be taken up: it was another one")
    return record.keeping


def _owner(req: falcon.Request, services: Services) -> str:
    """Who a stream belongs to. Keys that nobody asks for say nothing."""
    keys = keys_sent(req) if services.settings.needs_key else []
    return sha256(b"\0".join([req.path.encode(errors="replace"), *sorted(keys)])).hexdigest()
