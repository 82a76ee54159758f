"""``POST /tokenize``: the tokens of a text and where they stand in it."""

from collections.abc import Iterator

import falcon
import gevent
import orjson

from frontend.answers import JSON
from frontend.body import read_json
from frontend.schema import typed
from frontend.schema.generate import GenerateBody
from frontend.services import Services
from frontend.text.tokenizer import EncodedTokens

PIECE_TOKENS = 4096
"""Tokens that are written at once: about 200 kB, 3 ms."""


class Tokenize:
    """Ids with byte offsets into the UTF-8 input; added special tokens stand at 0 … 0."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Only ``inputs`` matters."""
        services = self._services
        body = typed(read_json(req, services.settings.payload_limit), GenerateBody)
        text = body.inputs
        tokens = services.offload.run(
            len(text), lambda: services.tokenizer.encode_with_offsets(text)
        )
        pieces = _body(text.encode(), tokens)
        if len(tokens) <= PIECE_TOKENS:
            resp.data = b"".join(pieces)
        else:
            resp.stream = pieces
        resp.content_type = JSON


def _body(text: bytes, tokens: EncodedTokens) -> Iterator[bytes]:
    """The answer, made as the client takes it: it is 50 times as large as the text."""
    yield b"["
    for first in range(0, len(tokens), PIECE_TOKENS):
        items = [
            {
                "id": token.id,
                "text": text[token.start : token.stop].decode(errors="replace"),
                "start": token.start,
                "stop": token.stop,
            }
            for token in tokens[first : first + PIECE_TOKENS]
        ]
        yield (b"," if first else b"") + orjson.dumps(items)[1:-1]
        gevent.sleep(0)
    yield b"]"
