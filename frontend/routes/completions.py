"""``POST /v1/completions``."""

from typing import Any

import falcon

from common.errors import RequestError
from frontend import exchange
from frontend.body import read_json
from frontend.routes.openai import counted_body
from frontend.routes.running import begin, refuse_stream, respond_stream, respond_whole
from frontend.runs import Run
from frontend.schema.openai import CompletionBody
from frontend.services import Services
from frontend.translate import completion_answers, completions, tgi_answers
from frontend.translate.completion_answers import CompletionDialect
from frontend.translate.tgi_answers import TgiCompletionDialect, stream_refusal
from frontend.translate.tgi_requests import STREAMED


class Completions:
    """One or several prompts continued by the model."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._dialect = services.settings.messages_api_dialect

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        begin(req)
        self.answer(req, resp, read_json(req, self._services.settings.payload_limit))

    def answer(self, req: falcon.Request, resp: falcon.Response, document: Any) -> None:
        """Answer a body that has been read."""
        body = counted_body(req, self._services, document, CompletionBody)
        try:
            self._respond(req, resp, body)
        except RequestError as error:
            if not (body.stream and self._dialect == "tgi" and error.kind in STREAMED):
                raise
            refuse_stream(req, resp, self._services, error, stream_refusal(error))

    def _respond(self, req: falcon.Request, resp: falcon.Response, body: CompletionBody) -> None:
        services = self._services
        streaming = bool(body.stream)
        request = completions.prepare(
            body,
            services,
            streaming=streaming,
            timeout_s=exchange.timeout_s(req, (body.timeout_ms or 0) / 1000),
            dialect=self._dialect,
        )
        as_tgi = self._dialect == "tgi"
        if streaming:
            dialect = (
                TgiCompletionDialect(request)
                if as_tgi
                else CompletionDialect(request, services.tokenizer)
            )
            respond_stream(req, resp, services, request, dialect)
            return

        def answer(runs: list[Run]) -> dict[str, Any]:
            if as_tgi:
                return tgi_answers.completion_answer(request, runs)
            return completion_answers.answer(request, runs, services.tokenizer)

        respond_whole(req, resp, services, request, answer, compute_time=False)
