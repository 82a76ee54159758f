"""``POST /v1/chat/completions``."""

import falcon

from frontend import exchange
from frontend.routes.openai import OpenAIRoute
from frontend.routes.running import respond_stream, respond_whole
from frontend.schema.openai import ChatBody
from frontend.sse import Dialect
from frontend.translate import chat, chat_answers, tgi_answers
from frontend.translate.chat_answers import ChatDialect, ChatRequest
from frontend.translate.tgi_answers import TgiChatDialect


class ChatCompletions(OpenAIRoute[ChatBody]):
    """A conversation continued by the model."""

    kind = ChatBody

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
        request = chat_answers.request_of(body, conversation, services, exchange.of(req).identity)
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
            return TgiChatDialect(request, tokenizer, tgi_answers.call_id(body, request.identity))
        return ChatDialect(request, tokenizer)
