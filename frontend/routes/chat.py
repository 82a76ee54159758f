"""``POST /v1/chat/completions``."""

from typing import Any

import falcon

from common.errors import RequestError
from frontend import exchange
from frontend.body import read_json
from frontend.routes.openai import counted_body
from frontend.routes.running import begin, refuse_stream, respond_stream, respond_whole
from frontend.schema.openai import ChatBody
from frontend.services import Services
from frontend.sse import Dialect
from frontend.translate import chat, chat_answers, tgi_answers
from frontend.translate.chat_answers import ChatDialect, ChatRequest
from frontend.translate.tgi_answers import TgiChatDialect, stream_refusal
from frontend.translate.tgi_requests import STREAMED


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
        body = counted_body(req, self._services, document, ChatBody)
        try:
            self._respond(req, resp, body)
        except RequestError as error:
            if not (body.stream and self._dialect == "tgi" and error.kind in STREAMED):
                raise
            refuse_stream(req, resp, self._services, error, stream_refusal(error))

    def _respond(self, req: falcon.Request, resp: falcon.Response, body: ChatBody) -> None:
        services = self._services
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
            respond_stream(req, resp, services, conversation, self._chunks(body, request))
            return
        answer = tgi_answers.chat_answer if self._dialect == "tgi" else chat_answers.answer
        respond_whole(
            req,
            resp,
            services,
            conversation,
            lambda runs: answer(request, runs, services.tokenizer),
        )

    def _chunks(self, body: ChatBody, request: ChatRequest) -> Dialect:
        """What writes the stream of this request."""
        tokenizer = self._services.tokenizer
        if self._dialect == "tgi":
            return TgiChatDialect(request, tokenizer, tgi_answers.call_id(body))
        return ChatDialect(request, tokenizer)
