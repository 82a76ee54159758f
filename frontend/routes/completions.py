"""``POST /v1/completions``."""

import falcon
import orjson

from frontend import exchange
from frontend.answers import JSON
from frontend.routes.openai import read_body
from frontend.routes.running import compute_headers, run_stream, run_whole, timing_headers
from frontend.schema.openai import CompletionBody
from frontend.services import Services
from frontend.translate import completions


class Completions:
    """One or several prompts continued by the model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        services = self._services
        body = read_body(req, services, CompletionBody)
        streaming = bool(body.stream)
        request = completions.prepare(
            body, services, streaming=streaming, timeout_s=exchange.timeout_s(req)
        )
        if streaming:
            dialect = completions.CompletionDialect(request)
            run_stream(req, resp, services, request.order, dialect)
            compute_headers(resp, services, request.characters)
            return
        runs, generation = run_whole(req, services, request.order)
        compute_headers(resp, services, request.characters)
        timing_headers(resp, generation, runs, sum(request.input_lengths))
        resp.data = orjson.dumps(completions.answer(request, runs))
        resp.content_type = JSON
