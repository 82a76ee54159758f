"""What happens around every route: request ids, CORS, API key, time limits of the connection.

Order matters: ids first, so that every answer has one; CORS before the key, so that preflight
requests need none; then the key.
"""

import hmac

import falcon

from common.errors import ErrorKind, RequestError
from frontend import access, exchange
from frontend.body import leave_unread
from frontend.services import Services

STALL_S = 120.0
"""A connection on which a single read or write makes no progress for so long is closed.

Protects against clients that stop reading in the middle of a stream."""

OPEN_PATHS = frozenset({"/", "/health", "/ping", "/info", "/metrics", "/v1/models"})
"""May be read without the API key; everything else, also what does not exist, needs it."""
OPEN_PREFIX = "/v1/models/"

_QUIET_PATHS = frozenset({"/", "/health", "/ping", "/metrics"})


class Tracking:
    """Opens the record of each request, and logs it unless a stream does."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin; the id is known to the client whatever happens."""
        record = exchange.begin(req, self._services.clock())
        resp.set_header("X-Request-Id", record.request_id)
        socket = req.env.get("gunicorn.socket")
        if socket is not None:
            socket.settimeout(STALL_S)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Log, if the answer is complete. Probes and scrapes are logged only when they fail."""
        record = exchange.of(req)
        record.status = record.status or resp.status_code
        if not record.body_read:
            leave_unread(req)
        if record.streams or (req.path in _QUIET_PATHS and req.method in ("GET", "HEAD")):
            return
        access.log(req, self._services.clock())


class Cors:
    """GET and POST, with a content type, from everywhere or from the listed origins."""

    def __init__(self, origins: list[str]) -> None:
        self._origins = frozenset(origins)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer preflight requests."""
        wanted = req.get_header("Access-Control-Request-Method")
        if req.method != "OPTIONS" or wanted is None or req.get_header("Origin") is None:
            return
        resp.set_header("Access-Control-Allow-Methods", "GET,POST")
        resp.set_header("Access-Control-Allow-Headers", "content-type")
        resp.append_header(
            "Vary", "origin, access-control-request-method, access-control-request-headers"
        )
        resp.status = falcon.HTTP_200
        resp.complete = True

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Say who may read the answer."""
        if not self._origins:
            resp.set_header("Access-Control-Allow-Origin", "*")
            return
        resp.append_header("Vary", "origin")
        origin = req.get_header("Origin")
        if origin in self._origins:
            resp.set_header("Access-Control-Allow-Origin", origin)


class Key:
    """Everything but the open paths needs ``Authorization: Bearer <key>`` when a key is set."""

    def __init__(self, key: str) -> None:
        self._expected = key.encode()

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (UNAUTHORIZED)."""
        reads = req.method in ("GET", "HEAD")
        if reads and (req.path in OPEN_PATHS or req.path.startswith(OPEN_PREFIX)):
            return
        scheme, _, key = (req.get_header("Authorization") or "").partition(" ")
        right = hmac.compare_digest(key.encode("latin-1", "replace"), self._expected)
        if not right or scheme.lower() != "bearer":
            resp.set_header("WWW-Authenticate", "Bearer")
            raise RequestError(ErrorKind.UNAUTHORIZED, "The API key is missing or wrong")
