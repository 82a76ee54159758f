"""``GET /health``, ``GET /ping``: can this server answer? Told by the scheduler's heartbeat.

Never runs the model and never waits behind work.
"""

import falcon

from common.errors import ErrorKind, RequestError
from frontend.services import Services


class Health:
    """200 with an empty body, or 503."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (HEALTH) while no request could be served."""
        if self._services.link.unhealthy():
            raise RequestError(ErrorKind.HEALTH, "unhealthy")
        resp.data = b""
        resp.content_type = falcon.MEDIA_TEXT

    on_head = on_get
