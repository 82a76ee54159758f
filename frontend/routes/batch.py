"""Several independent requests in one: run at once, answered in order, as hosting platforms want.

If one of them fails, the others are let go, and the whole fails with that error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import falcon
import gevent

from common.errors import RequestError
from frontend.generation import ClientGoneError
from frontend.limits import invalid
from frontend.routes.running import compute_headers, run_whole
from frontend.runs import Order, Run
from frontend.schema import typed
from frontend.schema.generate import GenerateBody, GenerateParameters
from frontend.services import Services
from frontend.translate import native


@dataclass(frozen=True)
class Item:
    """One of the requests."""

    order: Order
    text: Callable[[list[Run]], str]
    """The answer of its finished runs."""
    characters: int
    """Of its prompt."""


def native_item(document: dict[str, Any], services: Services, timeout_s: float) -> Item:
    """A request of the native surface; it samples unless it says otherwise. Raises RequestError."""
    body = typed(document, GenerateBody)
    parameters = document.get("parameters", {})
    if "do_sample" not in parameters:
        body = typed({**document, "parameters": {**parameters, "do_sample": True}}, GenerateBody)
    return text_item(body.inputs, body.parameters, services, timeout_s)


def text_item(
    text: str, parameters: GenerateParameters, services: Services, timeout_s: float
) -> Item:
    """A text to go on from. Raises RequestError."""
    body = GenerateBody(text, parameters)
    request = native.prepare(body, services, streaming=False, timeout_s=timeout_s)
    return Item(
        request.order, lambda runs: request.prefix + native.best(runs).text, len(request.inputs)
    )


def check_size(count: int, services: Services, name: str) -> None:
    """At least one, and no more than may be alive at once. Raises RequestError (VALIDATION)."""
    most = services.settings.max_concurrent_requests
    if not 1 <= count <= most:
        raise invalid(f"`{name}` must have 1 to {most} entries. Given: {count}")


def run_batch(
    req: falcon.Request, resp: falcon.Response, services: Services, items: list[Item]
) -> list[str]:
    """The answers, in order; sets the headers. Raises what the first failure raises."""

    def run(item: Item) -> str | RequestError | ClientGoneError:
        try:
            runs, _ = run_whole(req, services, item.order)
            return item.text(runs)
        except (RequestError, ClientGoneError) as error:
            return error

    greenlets = [gevent.spawn(run, item) for item in items]
    try:
        for ended in gevent.iwait(greenlets):
            if not isinstance(ended.get(), str):
                raise ended.get()
    finally:
        gevent.killall(greenlets)
    compute_headers(resp, services, sum(item.characters for item in items))
    return [greenlet.get() for greenlet in greenlets]
