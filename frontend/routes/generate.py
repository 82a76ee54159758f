"""The native routes: ``POST /``, ``POST /generate``, ``POST /generate_stream``."""

from typing import Any

import falcon
import orjson

from common.errors import RequestError
from frontend import exchange
from frontend.answers import JSON, native_stream_error
from frontend.body import read_json
from frontend.routes.health import Health
from frontend.routes.running import (
    begin,
    compute_headers,
    refuse_stream,
    run_stream,
    run_whole,
    timing_headers,
)
from frontend.schema import typed
from frontend.schema.generate import GenerateBody, RootBody
from frontend.services import Services
from frontend.translate import native


class Generate:
    """``POST /generate``: one JSON object."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Generate and answer when everything is there."""
        begin(req, self._services)
        body = typed(read_json(req, self._services.settings.payload_limit), GenerateBody)
        resp.data = orjson.dumps(answer_whole(req, resp, self._services, body))
        resp.content_type = JSON


class GenerateStream:
    """``POST /generate_stream``: events; errors are events too, the status is always 200."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Generate and answer token by token."""
        begin(req, self._services)
        body = typed(read_json(req, self._services.settings.payload_limit), GenerateBody)
        answer_stream(req, resp, self._services, body)


class Root:
    """``POST /``: a list of one object, or events; ``GET /`` is the health route."""

    def __init__(self, services: Services, health: Health) -> None:
        self._services = services
        self._health = health
        tag = services.settings.model_pipeline_tag
        self._full_text = native.root_returns_full_text(tag)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """As ``GET /health``."""
        self._health.on_get(req, resp)

    on_head = on_get

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Generate; ``stream`` decides how to answer."""
        begin(req, self._services)
        self.answer(req, resp, read_json(req, self._services.settings.payload_limit))

    def answer(self, req: falcon.Request, resp: falcon.Response, document: Any) -> None:
        """Answer a body that has been read."""
        body = typed(document, RootBody)
        if body.stream:
            answer_stream(req, resp, self._services, body, full_text=self._full_text)
            return
        answer = answer_whole(req, resp, self._services, body, full_text=self._full_text)
        resp.data = orjson.dumps([answer])
        resp.content_type = JSON


def answer_whole(
    req: falcon.Request,
    resp: falcon.Response,
    services: Services,
    body: GenerateBody,
    *,
    full_text: bool = False,
) -> dict[str, object]:
    """The answer of a native request that is not streamed; sets its headers."""
    request = native.prepare(
        body,
        services,
        streaming=False,
        full_text=full_text,
        timeout_s=exchange.timeout_s(req),
    )
    runs, generation = run_whole(req, services, request.order)
    winner = native.best(runs)
    compute_headers(resp, services, len(request.inputs))
    resp.set_header("X-Compute-Time", str(generation.timings[winner.index].total_s))
    timing_headers(resp, generation, [winner], request.input_length)
    return native.answer(request, runs, services.tokenizer)


def answer_stream(
    req: falcon.Request,
    resp: falcon.Response,
    services: Services,
    body: GenerateBody,
    *,
    full_text: bool = False,
) -> None:
    """Answer a native request with events, whatever happens."""
    compute_headers(resp, services, len(body.inputs))
    try:
        request = native.prepare(
            body,
            services,
            streaming=True,
            full_text=full_text,
            timeout_s=exchange.timeout_s(req),
        )
        dialect = native.NativeDialect(request, services.tokenizer)
        run_stream(req, resp, services, request.order, dialect)
    except RequestError as error:
        refuse_stream(req, resp, services, error, native_stream_error(error))
