"""``POST /tokenize``: the tokens of a text and where they stand in it."""

import falcon
import orjson

from frontend.answers import JSON
from frontend.body import read_json
from frontend.schema import typed
from frontend.schema.generate import GenerateBody
from frontend.services import Services
from frontend.text.tokenizer import Tokenizer


class Tokenize:
    """Ids with byte offsets into the UTF-8 input; added special tokens stand at 0 … 0."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Only ``inputs`` matters."""
        services = self._services
        body = typed(read_json(req, services.settings.payload_limit), GenerateBody)
        text = body.inputs
        resp.data = services.offload.run(len(text), lambda: _tokens(text, services.tokenizer))
        resp.content_type = JSON


def _tokens(text: str, tokenizer: Tokenizer) -> bytes:
    """The whole body: a long text makes many objects, which is work for a thread, too."""
    encoded = text.encode()
    return orjson.dumps(
        [
            {
                "id": token.id,
                "text": encoded[token.start : token.stop].decode(errors="replace"),
                "start": token.start,
                "stop": token.stop,
            }
            for token in tokenizer.encode_with_offsets(text)
        ]
    )
