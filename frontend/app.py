"""``create_app``: routes, middleware and error answers around the collaborators it is given.

Used by the server and by tests alike. Knows neither gunicorn nor sockets.
"""

import logging
from typing import Any

import falcon
import orjson

from common.errors import ErrorKind, RequestError
from frontend import exchange
from frontend.answers import (
    JSON,
    error_document,
    is_openai,
    request_error_document,
    retry_after,
)
from frontend.faults import describe
from frontend.generation import ClientGoneError
from frontend.middleware import Cors, Key, Tracking
from frontend.routes.chat import ChatCompletions
from frontend.routes.completions import Completions
from frontend.routes.generate import Generate, GenerateStream, Root
from frontend.routes.health import Health
from frontend.routes.info import Info, Metrics, Models
from frontend.routes.running import count_failure
from frontend.routes.tokenize import Tokenize
from frontend.services import Services

App = falcon.App[falcon.Request, falcon.Response]

_log = logging.getLogger(__name__)


def create_app(services: Services) -> App:
    """The WSGI application."""
    settings = services.settings
    middleware: list[Any] = [Tracking(services), Cors(settings.cors_allow_origin)]
    if settings.api_key is not None:
        middleware.append(Key(settings.api_key))
    app: App = falcon.App(middleware=middleware)
    errors = _Errors(services)
    app.add_error_handler(Exception, errors.unexpected)
    app.add_error_handler(falcon.HTTPError, errors.http)
    app.add_error_handler(ClientGoneError, errors.gone)
    app.add_error_handler(RequestError, errors.request)

    health, models = Health(services), Models(services)
    app.add_route("/", Root(services, health))
    app.add_route("/generate", Generate(services))
    app.add_route("/generate_stream", GenerateStream(services))
    app.add_route("/tokenize", Tokenize(services))
    app.add_route("/health", health)
    app.add_route("/ping", health)
    app.add_route("/info", Info(services))
    app.add_route("/metrics", Metrics(services))
    app.add_route("/v1/chat/completions", ChatCompletions(services))
    app.add_route("/v1/completions", Completions(services))
    app.add_route("/v1/models", models)
    app.add_route("/v1/models/{model:path}", models, suffix="one")
    return app


class _Errors:
    """Turns exceptions into answers; the table of statuses is in ``common/errors.py``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def request(
        self, req: falcon.Request, resp: falcon.Response, error: RequestError, params: object
    ) -> None:
        """A request's own error."""
        count_failure(self._services, exchange.of(req), error)
        resp.status = falcon.code_to_http_status(error.kind.http_status)
        resp.data = orjson.dumps(request_error_document(error, openai=is_openai(req.path)))
        resp.content_type = JSON
        wait = retry_after(error)
        if wait is not None:
            resp.set_header("Retry-After", wait)

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
        """What Falcon refuses: unknown paths, wrong methods, broken requests."""
        resp.set_headers(error.headers or {})
        kind = ErrorKind.NOT_FOUND if error.status_code == 404 else ErrorKind.MALFORMED
        message = error.title or "The request was refused"
        self._answer(req, resp, error.status_code, message, kind.error_type)

    def unexpected(
        self, req: falcon.Request, resp: falcon.Response, error: Exception, params: object
    ) -> None:
        """A mistake of ours: type and place go to the log, nothing else."""
        request_id = exchange.of(req).request_id
        _log.error("a request failed: %s", describe(error), extra={"request": request_id})
        self._answer(req, resp, 500, "Internal error", "internal")

    def _answer(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        status: int,
        message: str,
        error_type: str,
    ) -> None:
        exchange.of(req).error = error_type
        document = error_document(message, error_type, status, openai=is_openai(req.path))
        resp.status = falcon.code_to_http_status(status)
        resp.data = orjson.dumps(document)
        resp.content_type = JSON
