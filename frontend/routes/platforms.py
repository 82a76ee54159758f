"""``POST /invocations`` (SageMaker), ``POST /vertex`` (Vertex AI): one door for all requests."""

from typing import Any

import falcon
import orjson

from frontend import exchange
from frontend.answers import JSON
from frontend.body import read_json
from frontend.limits import invalid
from frontend.routes.batch import Item, check_size, native_item, run_batch
from frontend.routes.chat import ChatCompletions
from frontend.routes.completions import Completions
from frontend.routes.generate import Root
from frontend.routes.openai import as_dialect_reads
from frontend.routes.running import begin
from frontend.runs import Run
from frontend.schema import typed
from frontend.schema.openai import ChatBody
from frontend.schema.platforms import VertexBody
from frontend.services import Services
from frontend.translate import chat
from frontend.translate.reading import is_whole


class Invocations:
    """A native, chat or completion request, told apart by its fields; answered as by its route."""

    def __init__(
        self, services: Services, root: Root, chat: ChatCompletions, completions: Completions
    ) -> None:
        self._services = services
        self._routes = (("inputs", root), ("messages", chat), ("prompt", completions))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (VALIDATION) for what is none of the three."""
        begin(req, self._services)
        document = read_json(req, self._services.settings.payload_limit)
        for field, route in self._routes:
            if isinstance(document, dict) and field in document:
                route.answer(req, resp, document)
                return
        raise invalid("the body needs `inputs`, `messages` or `prompt`")


class Vertex:
    """Instances, each a native request or a chat request; their texts are the predictions."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All instances run at once."""
        services = self._services
        begin(req, services)
        body = typed(read_json(req, services.settings.payload_limit), VertexBody)
        check_size(len(body.instances), services, "instances")
        timeout_s = exchange.timeout_s(req)
        items = [self._item(instance, timeout_s) for instance in body.instances]
        resp.data = orjson.dumps({"predictions": run_batch(req, resp, services, items)})
        resp.content_type = JSON

    def _item(self, instance: dict[str, Any], timeout_s: float) -> Item:
        if "messages" not in instance:
            return native_item(instance, self._services, timeout_s)
        body = as_dialect_reads(instance, typed(instance, ChatBody), self._services)
        if body.n not in (None, 1):
            raise invalid("`n` must be 1 in an instance")
        conversation = chat.prepare(
            body,
            self._services,
            streaming=False,
            timeout_s=timeout_s,
            dialect=self._services.settings.messages_api_dialect,
        )

        def text(runs: list[Run]) -> str:
            """What the model says, or the JSON text of its calls."""
            said = conversation.said(runs[0])
            if not said.calls:
                return said.content
            calls = [
                {"name": call.name, "arguments": _arguments(call.arguments)} for call in said.calls
            ]
            return orjson.dumps(calls[0] if len(calls) == 1 else calls).decode()

        return Item(conversation.order, text, conversation.characters)


def _arguments(text: str) -> orjson.Fragment | str:
    """The object that they are; as much of its text as there is, if they were cut off."""
    return orjson.Fragment(text) if is_whole(text) else text
