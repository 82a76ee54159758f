"""``GET /health`` and its kin: does this process answer, can the server, does work get on.

All is told by the scheduler's heartbeat: never runs the model and never waits behind work.
"""

import falcon
import orjson

from common.errors import ErrorKind, RequestError
from common.messages import Status
from frontend.answers import JSON
from frontend.services import Services


class Health:
    """``/health``, ``/health/ready``, ``/ping``: 200 with an empty body, or 503."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (HEALTH) while no request could be served."""
        if self._services.link.unhealthy():
            raise RequestError(ErrorKind.HEALTH, "unhealthy")
        resp.data = b""
        resp.content_type = falcon.MEDIA_TEXT

    on_head = on_get


class Live:
    """``/health/live``: that there is an answer at all is the answer."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200 with an empty body."""
        resp.data = b""
        resp.content_type = falcon.MEDIA_TEXT

    on_head = on_get


class Progressing:
    """``/health/progress``: what runs, what waits; 503 if a replica gets nowhere with its work."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (HEALTH) while the scheduler is silent: then nobody knows."""
        status = self._services.link.status()
        if status is None:
            raise RequestError(ErrorKind.HEALTH, "the scheduler is not answering")
        document = _document(status)
        stalled = _stalled(status)
        if stalled:
            resp.status = falcon.code_to_http_status(ErrorKind.HEALTH.http_status)
            document |= {"error": stalled, "error_type": ErrorKind.HEALTH.error_type}
        resp.data = orjson.dumps(document)
        resp.content_type = JSON

    on_head = on_get


def _document(status: Status) -> dict[str, object]:
    return {
        "replicas": [
            {
                "replica": replica.replica,
                "ready": replica.ready,
                "running": replica.running,
                "progress_age_s": round(replica.progress_age_s, 3),
            }
            for replica in status.replicas
        ],
        "waiting": status.waiting,
        "running": status.running,
        "accepting": status.accepting,
    }


def _stalled(status: Status) -> str:
    """Who gets nowhere; empty if nobody.

    The scheduler judges, because it knows how long a replica's steps may take: one that has work
    and is not ready has been silent for half of the time after which it is replaced.
    """
    silent = [
        f"replica {replica.replica} has made no progress for {replica.progress_age_s:.1f} s"
        for replica in status.replicas
        if replica.running and not replica.ready
    ]
    return ", ".join(silent)
