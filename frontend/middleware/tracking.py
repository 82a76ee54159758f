"""Around every request: its id, its line in the access log, the time limits of its connection.

Runs in every front-end process.
"""

import falcon

from common.routes import ALWAYS_OPEN
from frontend import access, exchange
from frontend.body import leave_unread
from frontend.services import Services
from frontend.surfaces import Surface, surface_of

STALL_S = 120.0
"""A connection on which a single read or write makes no progress for so long is closed.

Protects against clients that stop reading in the middle of a stream."""

_QUIET_PATHS = ALWAYS_OPEN | {"/metrics"}
"""Asked for again and again, by machines."""
_FAILED = 400
"""From this status on."""


class Tracking:
    """Opens the record of each request, and logs it unless a stream does."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._quiet = _QUIET_PATHS | {services.settings.vertex_health_route}

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Begin; the id is known to the client whatever happens."""
        services = self._services
        record = exchange.begin(
            req, services.clock(), services.wall_clock(), traces=services.tracer is not None
        )
        resp.set_header("X-Request-Id", record.request_id)
        if surface_of(req.path) is Surface.ANTHROPIC:
            resp.set_header("request-id", record.request_id)
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
        probes = req.path in self._quiet and req.method in ("GET", "HEAD")
        if record.streams or (probes and record.status < _FAILED):
            return
        access.over(req, self._services)
