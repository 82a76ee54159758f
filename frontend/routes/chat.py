"""``POST /v1/chat/completions``."""

import falcon
import orjson

from frontend import exchange
from frontend.answers import JSON
from frontend.routes.openai import read_body
from frontend.routes.running import compute_headers, run_stream, run_whole, timing_headers
from frontend.schema.openai import ChatBody
from frontend.services import Services
from frontend.translate import chat


class ChatCompletions:
    """A conversation continued by the model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        services = self._services
        body = read_body(req, services, ChatBody)
        streaming = bool(body.stream)
        request = chat.prepare(
            body, services, streaming=streaming, timeout_s=exchange.timeout_s(req)
        )
        if streaming:
            dialect = chat.ChatDialect(request, services.tokenizer)
            run_stream(req, resp, services, request.order, dialect)
            compute_headers(resp, services, request.characters)
            return
        runs, generation = run_whole(req, services, request.order)
        compute_headers(resp, services, request.characters)
        resp.set_header("X-Compute-Time", str(generation.timings[0].total_s))
        timing_headers(resp, generation, runs, request.input_length)
        resp.data = orjson.dumps(chat.answer(request, runs, services.tokenizer))
        resp.content_type = JSON
