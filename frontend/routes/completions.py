"""``POST /v1/completions``."""

from typing import Any

import falcon

from frontend import exchange
from frontend.routes.openai import OpenAIRoute
from frontend.routes.running import respond_stream, respond_whole
from frontend.runs import Run
from frontend.schema.openai import CompletionBody
from frontend.translate import completion_answers, completions, tgi_answers
from frontend.translate.completion_answers import CompletionDialect
from frontend.translate.tgi_answers import TgiCompletionDialect


class Completions(OpenAIRoute[CompletionBody]):
    """One or several prompts continued by the model."""

    kind = CompletionBody

    def _respond(self, req: falcon.Request, resp: falcon.Response, body: CompletionBody) -> None:
        services = self._services
        streaming = bool(body.stream)
        request = completions.prepare(
            body,
            services,
            streaming=streaming,
            timeout_s=exchange.timeout_s(req, (body.timeout_ms or 0) / 1000),
            dialect=self._dialect,
            identity=exchange.of(req).identity,
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
