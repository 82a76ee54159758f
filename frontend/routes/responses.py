"""``POST /v1/responses``: OpenAI's newer API, of which nothing is stored.

Runs in front ends. Thin: everything between the request and the deltas of the answer is chat's.
"""

from dataclasses import replace
from typing import Any, NoReturn

import falcon

from common.errors import ErrorKind, RequestError
from frontend import exchange
from frontend.body import read_json
from frontend.routes.running import begin, respond_stream, respond_whole
from frontend.schema import typed
from frontend.schema.responses import ResponsesBody, refuse_unsupported
from frontend.services import Services
from frontend.translate import chat, responses, responses_answers
from frontend.translate.orders import Names
from frontend.translate.responses_answers import ResponsesDialect

STORED = r"/v1/responses/."
"""Matches the paths of responses that were stored, if they were."""


class Responses:
    """A conversation continued by the model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        services = self._services
        begin(req, services)
        document = read_json(req, services.settings.payload_limit)
        body = typed(document, ResponsesBody)
        refuse_unsupported(document)
        streaming = bool(body.stream)
        prepared = chat.prepare(
            responses.chat_body(body),
            services,
            streaming=streaming,
            timeout_s=exchange.timeout_s(req),
            names=Names("input", "max_output_tokens", "text.format"),
        )
        request = responses_answers.request_of(body, prepared, services, exchange.of(req).identity)
        if streaming:
            respond_stream(req, resp, services, prepared, ResponsesDialect(request))
            return
        kept = replace(prepared, order=replace(prepared.order, keep_tokens=True))
        respond_whole(
            req, resp, services, kept, lambda runs: responses_answers.answer(request, runs[0])
        )


def nothing_stored(req: falcon.Request, resp: falcon.Response, **params: Any) -> NoReturn:
    """Answers every method of every path below ``/v1/responses``. Raises RequestError."""
    raise RequestError(
        ErrorKind.NOT_FOUND,
        "No response is stored on this server: there is nothing below /v1/responses",
    )
