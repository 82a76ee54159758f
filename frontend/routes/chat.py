"""``POST /v1/chat/completions``."""

from typing import Any

import falcon
import orjson

from frontend import exchange
from frontend.answers import JSON
from frontend.body import read_json
from frontend.routes.openai import counted_body
from frontend.routes.running import begin, compute_headers, run_stream, run_whole, timing_headers
from frontend.schema.openai import ChatBody
from frontend.services import Services
from frontend.sse import Dialect
from frontend.translate import chat, chat_answers, tgi_answers
from frontend.translate.chat_answers import ChatDialect, ChatRequest
from frontend.translate.tgi_answers import TgiChatDialect


class ChatCompletions:
    """A conversation continued by the model."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._dialect = services.settings.messages_api_dialect

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        begin(req)
        self.answer(req, resp, read_json(req, self._services.settings.payload_limit))

    def answer(self, req: falcon.Request, resp: falcon.Response, document: Any) -> None:
        """Answer a body that has been read."""
        services = self._services
        body = counted_body(req, services, document, ChatBody)
        streaming = bool(body.stream)
        conversation = chat.prepare(
            body,
            services,
            streaming=streaming,
            timeout_s=exchange.timeout_s(req, (body.timeout_ms or 0) / 1000),
            dialect=self._dialect,
        )
        request = chat_answers.request_of(body, conversation, services)
        if streaming:
            run_stream(req, resp, services, conversation.order, self._chunks(body, request))
            compute_headers(resp, services, conversation.characters)
            return
        runs, generation = run_whole(req, services, conversation.order)
        compute_headers(resp, services, conversation.characters)
        resp.set_header("X-Compute-Time", str(generation.timings[0].total_s))
        timing_headers(resp, generation, runs, conversation.input_length)
        answer = tgi_answers.chat_answer if self._dialect == "tgi" else chat_answers.answer
        resp.data = orjson.dumps(answer(request, runs, services.tokenizer))
        resp.content_type = JSON

    def _chunks(self, body: ChatBody, request: ChatRequest) -> Dialect:
        """What writes the stream of this request."""
        tokenizer = self._services.tokenizer
        if self._dialect == "tgi":
            return TgiChatDialect(request, tokenizer, tgi_answers.call_id(body))
        return ChatDialect(request, tokenizer)
