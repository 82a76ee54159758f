"""``POST /tokenize`` and ``POST /chat_tokenize``: the tokens of a text and where they stand in it.

Runs in front ends. Whole answers are far larger than the texts, so they are made piece by piece.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import falcon
import gevent
import orjson

from frontend.answers import JSON
from frontend.body import read_json
from frontend.routes.large import LargeAnswers, Pieces, Seat
from frontend.routes.openai import read_body
from frontend.schema import typed
from frontend.schema.generate import GenerateBody
from frontend.schema.openai import ChatBody
from frontend.services import Services
from frontend.text.tokenizer import EncodedTokens
from frontend.translate import conversation, tools

PIECE_TOKENS = 4096
"""Tokens that are written at once: about 200 kB, 3 ms."""


class Tokenize:
    """Ids with byte offsets into the UTF-8 input; added special tokens stand at 0 … 0."""

    def __init__(self, services: Services, large: LargeAnswers) -> None:
        self._services = services
        self._large = large

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Only ``inputs`` matters."""
        services = self._services
        body = typed(read_json(req, services.settings.payload_limit), GenerateBody)
        text = body.inputs
        seat = self._large.seat(len(text))
        with _leaving(seat):
            tokens = _encode(text, services, add_special_tokens=True)
            pieces = _array(text.encode(), tokens)
            _answer(resp, len(tokens), self._large.stream(pieces, seat))


class ChatTokenize:
    """The prompt of a chat request and its tokens; no special tokens but the template's."""

    def __init__(self, services: Services, large: LargeAnswers) -> None:
        self._services = services
        self._large = large

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Only what makes the prompt matters."""
        services = self._services
        body = read_body(req, services, ChatBody)
        prompt = conversation.render(body, services, tools.choice_of(body)).text
        seat = self._large.seat(len(prompt))
        with _leaving(seat):
            tokens = _encode(prompt, services, add_special_tokens=False)
            _answer(resp, len(tokens), self._large.stream(_object(prompt, tokens), seat))


def _encode(text: str, services: Services, *, add_special_tokens: bool) -> EncodedTokens:
    return services.offload.run(
        len(text),
        lambda: services.tokenizer.encode_with_offsets(text, add_special_tokens=add_special_tokens),
    )


@contextmanager
def _leaving(seat: Seat | None) -> Iterator[None]:
    """Give the seat back if nothing comes of the answer."""
    try:
        yield
    except BaseException:
        if seat is not None:
            seat.leave()
        raise


def _answer(resp: falcon.Response, count: int, pieces: Pieces) -> None:
    """Whole if it is small, else as the client takes it."""
    if count <= PIECE_TOKENS:
        resp.data = b"".join(pieces)
        pieces.close()
    else:
        resp.stream = pieces
    resp.content_type = JSON


def _object(prompt: str, tokens: EncodedTokens) -> Iterator[bytes]:
    yield b'{"tokenize_response":'
    yield from _array(prompt.encode(), tokens)
    yield b',"templated_text":' + orjson.dumps(prompt) + b"}"


def _array(text: bytes, tokens: EncodedTokens) -> Iterator[bytes]:
    """The tokens, made as the client takes them: they are 50 times as large as the text."""
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
