"""How both OpenAI routes begin: the body read, typed, counted, and checked for what is missing.

And how they refuse a stream, which TGI's dialect does by an event.
"""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import falcon

from common.errors import RequestError
from frontend.body import read_json
from frontend.routes.running import begin, count_call, refuse_stream
from frontend.schema import typed
from frontend.schema.openai import OpenAIBody, refuse_unsupported
from frontend.services import Services
from frontend.translate.tgi_answers import stream_refusal
from frontend.translate.tgi_requests import STREAMED, as_tgi_reads

Body = TypeVar("Body", bound=OpenAIBody)


def read_body(req: falcon.Request, services: Services, kind: type[Body]) -> Body:
    """The body as a ``kind``. Raises RequestError; once it has its types, the call is counted."""
    begin(req, services)
    document = read_json(req, services.settings.payload_limit)
    return counted_body(req, services, document, kind)


def counted_body(req: falcon.Request, services: Services, document: Any, kind: type[Body]) -> Body:
    """A body that has been read, as a ``kind``. Raises RequestError."""
    body = typed(document, kind)
    count_call(req, services)
    return as_dialect_reads(document, body, services)


def as_dialect_reads(document: Any, body: Body, services: Services) -> Body:
    """A typed body without what the server's dialect ignores. Raises RequestError (VALIDATION)."""
    if services.settings.messages_api_dialect == "tgi":
        return as_tgi_reads(body)
    refuse_unsupported(document)
    return body


class OpenAIRoute(ABC, Generic[Body]):
    """What chat and completions do alike around their own work."""

    kind: type[Body]
    """Of the bodies."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._dialect = services.settings.messages_api_dialect

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Errors before the first token are ordinary answers, also of streams."""
        begin(req, self._services)
        self.answer(req, resp, read_json(req, self._services.settings.payload_limit))

    def answer(self, req: falcon.Request, resp: falcon.Response, document: Any) -> None:
        """Answer a body that has been read."""
        body = counted_body(req, self._services, document, self.kind)
        try:
            self._respond(req, resp, body)
        except RequestError as error:
            if not (body.stream and self._dialect == "tgi" and error.kind in STREAMED):
                raise
            refuse_stream(req, resp, self._services, error, stream_refusal(error))

    @abstractmethod
    def _respond(self, req: falcon.Request, resp: falcon.Response, body: Body) -> None:
        """Answer, whole or as a stream. Raises RequestError."""
