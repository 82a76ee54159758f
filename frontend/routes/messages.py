"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``: Anthropic's API.

Runs in front ends. Thin: everything between the request and the deltas of the answer is chat's.
"""

from typing import TypeVar

import falcon
import orjson

from frontend import exchange
from frontend.answers import JSON
from frontend.body import read_json
from frontend.routes.running import begin, respond_stream, respond_whole
from frontend.schema import typed
from frontend.schema.messages import CountTokensBody, MessagesBody, refuse_unsupported
from frontend.services import Services
from frontend.translate import chat, conversation, messages, messages_answers, tools
from frontend.translate.messages_answers import MessagesDialect
from frontend.translate.orders import Names
from frontend.translate.prompts import encode

Body = TypeVar("Body", bound=CountTokensBody)


class Messages:
    """A conversation continued by the model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        services = self._services
        begin(req, services)
        body = _read(req, services, MessagesBody)
        streaming = bool(body.stream)
        prepared = chat.prepare(
            messages.chat_body(body, services.settings),
            services,
            streaming=streaming,
            timeout_s=exchange.timeout_s(req),
            names=Names(grammar="output_config.format"),
        )
        record = exchange.of(req)
        request = messages_answers.request_of(
            body, prepared, services, record.identity, record.request_id
        )
        if streaming:
            respond_stream(req, resp, services, prepared, MessagesDialect(request))
            return
        respond_whole(
            req, resp, services, prepared, lambda runs: messages_answers.answer(request, runs[0])
        )


class CountTokens:
    """How long the prompt of a conversation is."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Only what makes the prompt matters."""
        services = self._services
        body = messages.prompt_body(_read(req, services, CountTokensBody))
        prompt = conversation.render(body, services, tools.choice_of(body)).text
        ids = encode(prompt, services.tokenizer, services.offload, add_special_tokens=False)
        resp.data = orjson.dumps({"input_tokens": len(ids)})
        resp.content_type = JSON


def _read(req: falcon.Request, services: Services, kind: type[Body]) -> Body:
    """The body as a ``kind``. Raises RequestError."""
    document = read_json(req, services.settings.payload_limit)
    body = typed(document, kind)
    refuse_unsupported(document)
    return body
