"""``GET /info``, ``GET /v1/models``, ``GET /metrics``: what this server is and does."""

import falcon
import orjson

from common.errors import ErrorKind, RequestError
from common.messages import ReplicaStatus
from common.settings import Settings
from frontend.answers import JSON
from frontend.services import Services

ROUTER = "text-generation-router"
"""A constant of the API: clients tell TGI-compatible servers by it."""
SCRAPE_LIMIT_S = 2.0


def info(settings: Settings, version: str, replica: ReplicaStatus | None) -> dict[str, object]:
    """The body of ``/info``: TGI 3's keys, then those of older versions.

    What the workers have decided is null while no replica is ready.
    """
    room = replica.kv_tokens if replica is not None else settings.max_batch_total_tokens
    return {
        "model_id": settings.model_id,
        "model_sha": settings.model_sha,
        "model_pipeline_tag": settings.model_pipeline_tag,
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_best_of": settings.max_best_of,
        "max_stop_sequences": settings.max_stop_sequences,
        "max_input_tokens": settings.max_input_tokens,
        "max_total_tokens": settings.max_total_tokens,
        "validation_workers": settings.validation_workers,
        "max_client_batch_size": settings.max_client_batch_size,
        "router": ROUTER,
        "version": version,
        "sha": None,
        "docker_label": None,
        "model_dtype": replica.dtype if replica is not None else None,
        "model_device_type": replica.device if replica is not None else None,
        "max_input_length": settings.max_input_tokens,
        "waiting_served_ratio": settings.waiting_served_ratio,
        "max_batch_total_tokens": room,
        "max_waiting_tokens": settings.max_waiting_tokens,
        "max_batch_size": settings.max_batch_size,
    }


class Info:
    """``GET /info``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The limits in force, and what runs the model."""
        services = self._services
        body = info(services.settings, services.version, services.link.replica())
        resp.data = orjson.dumps(body)
        resp.content_type = JSON

    on_head = on_get


class Models:
    """``GET /v1/models`` and ``GET /v1/models/{id}``: the model, and its adapters."""

    def __init__(self, services: Services) -> None:
        base = services.settings.model_id
        self._models: dict[str, dict[str, object]] = {base: _model(base, base)}
        for adapter in services.settings.adapters:
            self._models[adapter.name] = {**_model(adapter.name, base), "parent": base}

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """All of them, the model first."""
        resp.data = orjson.dumps({"object": "list", "data": list(self._models.values())})
        resp.content_type = JSON

    on_head = on_get

    def on_get_one(self, req: falcon.Request, resp: falcon.Response, model: str) -> None:
        """The one of that name. Raises RequestError (NOT_FOUND)."""
        found = self._models.get(model)
        if found is None:
            raise RequestError(ErrorKind.NOT_FOUND, "There is no model of that name")
        resp.data = orjson.dumps(found)
        resp.content_type = JSON

    on_head_one = on_get_one


def _model(name: str, owner: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


class Metrics:
    """``GET /metrics``: the scheduler's registry."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises RequestError (UNAVAILABLE) if the scheduler does not answer in time."""
        text = self._services.link.scrape(SCRAPE_LIMIT_S)
        if text is None:
            raise RequestError(ErrorKind.UNAVAILABLE, "The scheduler is not answering")
        resp.data = text
        resp.content_type = falcon.MEDIA_TEXT

    on_head = on_get
