"""Asks a server what it needs to be asked: its model's name, and how long its tokens are.

Two small requests before the load. A server that does not answer them is not measured: its
sentence comes at once, and not after a thousand failures.
"""

import http.client
from collections.abc import Callable
from typing import Any

from common.errors import StartupError
from launcher.bench.client import Outcome, Target, get_json
from launcher.bench.scenarios import WORDS, Ruler, Work

_FEW, _MORE = 16, 96
"""Words of the two requests."""


def model_of(target: Target) -> str:
    """The name that the server has for its model; ``tgi`` if it does not say. Raises StartupError.

    OpenAI's servers list models, TGI's describe one.
    """
    try:
        listed = get_json(target, "/v1/models")
        name = _at(listed, "data", 0, "id") or _at(get_json(target, "/info"), "model_id")
    except (OSError, http.client.HTTPException) as error:
        raise StartupError(
            f"{target.url} does not answer ({error}): is the server up, and --url right?"
        ) from None
    return name if isinstance(name, str) and name else "tgi"


def _at(value: Any, *path: str | int) -> Any:
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value


def ruler_of(send: Callable[[Work], Outcome], url: str) -> Ruler | None:
    """Measured words per token; None if the server does not count tokens. Raises StartupError."""
    few = _probe(send, _FEW)
    if few.failure:
        hint = "; give --api-key" if few.failure.startswith(("401", "403")) else ""
        raise StartupError(f"{url} does not answer a first request: {few.failure}{hint}")
    more = _probe(send, _MORE)
    if not few.input_tokens:
        return None
    if more.failure or more.input_tokens <= few.input_tokens:
        return Ruler(_FEW / few.input_tokens)
    tokens_per_word = (more.input_tokens - few.input_tokens) / (_MORE - _FEW)
    return Ruler(1 / tokens_per_word, max(0.0, few.input_tokens - _FEW * tokens_per_word))


def _probe(send: Callable[[Work], Outcome], count: int) -> Outcome:
    words = [WORDS[number % len(WORDS)] for number in range(count)]
    return send(Work((" ".join(words),), 1))
