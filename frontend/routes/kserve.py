"""KServe's V2 protocol (Open Inference Protocol): health, metadata, ``infer`` over texts."""

import falcon
import orjson

from common.errors import ErrorKind, RequestError
from frontend import exchange
from frontend.answers import JSON
from frontend.body import read_json
from frontend.limits import invalid
from frontend.routes.batch import check_size, run_batch, text_item
from frontend.routes.running import begin
from frontend.schema import typed
from frontend.schema.platforms import InferBody, InferInput
from frontend.services import Services

SERVER_NAME = "text-generation-inference"
"""A constant of the API: clients tell TGI-compatible servers by it."""


class KServeHealth:
    """``/v2/health/live`` and ``/v2/health/ready``, and the readiness of the one model."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response, **names: str) -> None:
        """The process answers, so it lives."""
        resp.data = orjson.dumps({"live": True})
        resp.content_type = JSON

    def on_get_ready(self, req: falcon.Request, resp: falcon.Response, **names: str) -> None:
        """Raises RequestError (HEALTH) while no request could be served."""
        if self._services.link.unhealthy():
            raise RequestError(ErrorKind.HEALTH, "unhealthy")
        self.on_get(req, resp)

    on_head, on_head_ready = on_get, on_get_ready


class KServeMetadata:
    """``/v2`` and ``/v2/models/{name}[/versions/{version}]``."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The server."""
        resp.data = orjson.dumps(
            {
                "name": SERVER_NAME,
                "version": self._services.version,
                "extensions": ["health", "models", "metrics"],
            }
        )
        resp.content_type = JSON

    def on_get_model(
        self, req: falcon.Request, resp: falcon.Response, model: str, version: str = ""
    ) -> None:
        """The model; any name is right, as in TGI."""
        document = {"name": model, "version": version, "extensions": ["infer", "ready"]}
        resp.data = orjson.dumps(document)
        resp.content_type = JSON

    on_head, on_head_model = on_get, on_get_model


class KServeInfer:
    """``POST …/infer``: each input is one text, and its answer the output of the same place."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response, **names: str) -> None:
        """All inputs run at once."""
        services = self._services
        begin(req, services)
        body = typed(read_json(req, services.settings.payload_limit), InferBody)
        check_size(len(body.inputs), services, "inputs")
        if body.outputs and len(body.outputs) != len(body.inputs):
            raise invalid("`outputs` must have as many entries as `inputs`, or none")
        timeout_s = exchange.timeout_s(req)
        texts = [_text(tensor, i) for i, tensor in enumerate(body.inputs)]
        items = [text_item(text, body.parameters, services, timeout_s) for text in texts]
        answers = run_batch(req, resp, services, items)
        outputs = []
        for number, (tensor, answer) in enumerate(zip(body.inputs, answers, strict=True)):
            as_bytes = not isinstance(tensor.data[0], str)
            data = list(answer.encode()) if as_bytes else [answer]
            outputs.append(
                {
                    "name": body.outputs[number].name if body.outputs else tensor.name,
                    "shape": [1, len(data)],
                    "datatype": "BYTES",
                    "data": data,
                }
            )
        resp.data = orjson.dumps({"id": body.id, "outputs": outputs})
        resp.content_type = JSON


def _text(tensor: InferInput, index: int) -> str:
    """The text of a tensor. Raises RequestError (VALIDATION)."""
    where = f"`inputs[{index}].data`"
    if tensor.datatype != "BYTES":
        raise invalid(f"`inputs[{index}].datatype` must be BYTES")
    data = tensor.data[0] if len(tensor.data) == 1 else tensor.data
    if isinstance(data, str):
        return data
    numbers = data if isinstance(data, list) else [data]
    if not numbers or not all(isinstance(n, int) and 0 <= n < 256 for n in numbers):
        raise invalid(f"{where} must be one string, or the bytes of one")
    try:
        return bytes(n for n in numbers if isinstance(n, int)).decode()
    except UnicodeDecodeError:
        raise invalid(f"{where} is not UTF-8") from None
