"""What becomes of the exceptions that routes and Falcon raise: every one an answer in JSON.

The table of kinds and statuses is in ``common/errors.py``, the documents are in ``surfaces.py``.
Runs in every front-end process.
"""

import logging
from http import HTTPStatus
from typing import Any

import falcon
import orjson

from common.errors import ErrorKind, RequestError
from frontend import exchange
from frontend.answers import JSON, request_error_document, retry_after
from frontend.faults import describe
from frontend.generation import ClientGoneError
from frontend.routes.running import count_failed, count_failure
from frontend.services import Services
from frontend.surfaces import Surface, error_document, surface_of

_log = logging.getLogger(__name__)


class ErrorHandlers:
    """Falcon's error handlers, one for each family of exceptions."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def add_to(self, app: falcon.App[Any, Any]) -> None:
        """Have an application use them. Of several that fit, the last one added counts."""
        app.add_error_handler(Exception, self.unexpected)
        app.add_error_handler(falcon.HTTPError, self.http)
        app.add_error_handler(ClientGoneError, self.gone)
        app.add_error_handler(RequestError, self.request)

    def request(
        self, req: falcon.Request, resp: falcon.Response, error: RequestError, params: object
    ) -> None:
        """A request's own error."""
        record = exchange.of(req)
        count_failure(self._services, record, error)
        wait = retry_after(error)
        if wait is not None:
            resp.set_header("Retry-After", wait)
        document = request_error_document(error, self._surface(req), record.request_id)
        _answer(resp, error.kind.http_status, document)

    def gone(
        self, req: falcon.Request, resp: falcon.Response, error: ClientGoneError, params: object
    ) -> None:
        """Nobody reads this answer; the status is for the log."""
        exchange.of(req).error = "dropped"
        resp.status = f"{exchange.CLIENT_GONE_STATUS} Client Closed Request"
        resp.data = b""

    def http(
        self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: object
    ) -> None:
        """What Falcon refuses: unknown paths, wrong methods (told which are right), bad headers."""
        resp.set_headers(error.headers or {})
        kind = ErrorKind.NOT_FOUND if error.status_code == 404 else ErrorKind.MALFORMED
        self._refuse(req, resp, error.status_code, _sentence(req, error), kind.error_type)

    def unexpected(
        self, req: falcon.Request, resp: falcon.Response, error: Exception, params: object
    ) -> None:
        """A mistake of ours: type and place go to the log, nothing else."""
        record = exchange.of(req)
        _log.error("a request failed: %s", describe(error), extra={"request": record.request_id})
        count_failed(self._services, record, "internal")
        self._refuse(req, resp, 500, "Internal error", "internal")

    def _refuse(
        self, req: falcon.Request, resp: falcon.Response, status: int, message: str, kind: str
    ) -> None:
        record = exchange.of(req)
        record.error = kind
        surface = self._surface(req)
        _answer(resp, status, error_document(message, kind, status, surface, record.request_id))

    def _surface(self, req: falcon.Request) -> Surface:
        as_tgi = self._services.settings.messages_api_dialect == "tgi"
        return surface_of(req.path, as_tgi=as_tgi)


def _sentence(req: falcon.Request, error: falcon.HTTPError) -> str:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return "There is no such route: GET /docs shows all of them"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = dict(error.headers or {}).get("Allow", "").split(", ")
        right = " or ".join(method for method in allowed if method != "OPTIONS")
        return f"{req.method} is not a method of this route: it takes {right}"
    return error.title or "The request was refused"


def _answer(resp: falcon.Response, status: int, document: dict[str, Any]) -> None:
    resp.status = falcon.code_to_http_status(status)
    resp.data = orjson.dumps(document)
    resp.content_type = JSON
