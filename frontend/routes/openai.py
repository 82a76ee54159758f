"""How both OpenAI routes begin: the body read, typed, counted, and checked for what is missing."""

from typing import Any, TypeVar

import falcon

from frontend.body import read_json
from frontend.routes.running import begin, count_call
from frontend.schema import typed
from frontend.schema.openai import OpenAIBody, refuse_unsupported
from frontend.services import Services
from frontend.translate.tgi_requests import as_tgi_reads

Body = TypeVar("Body", bound=OpenAIBody)


def read_body(req: falcon.Request, services: Services, kind: type[Body]) -> Body:
    """The body as a ``kind``. Raises RequestError; once it has its types, the call is counted."""
    begin(req)
    document = read_json(req, services.settings.payload_limit)
    return counted_body(req, services, document, kind)


def counted_body(req: falcon.Request, services: Services, document: Any, kind: type[Body]) -> Body:
    """A body that has been read, as a ``kind``. Raises RequestError."""
    body = typed(document, kind)
    count_call(req, services)
    if services.settings.messages_api_dialect == "tgi":
        return as_tgi_reads(body)
    refuse_unsupported(document)
    return body
