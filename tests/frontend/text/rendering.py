"""Chats rendered by us and by transformers: what the tests of templates share.

Templates are files in ``templates/``, written in the styles of the common families of models.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from common.errors import ErrorKind, RequestError
from frontend.text.template import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
NOW = datetime(2024, 7, 6, 9, 5)
STYLES = {
    path.stem: path.read_bytes().decode()
    for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <now> & 'then' in Zürich",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": " Where? ", "enum": ["Bern", "日本"]},
                    "days": {"type": ["integer", "null"], "default": 3},
                    "at": {"type": "array", "items": {"type": "number"}},
                    "more": {
                        "type": "object",
                        "additionalProperties": {"type": "array", "items": {"type": "boolean"}},
                        "properties": {"deep": {"type": "object", "properties": {}}},
                    },
                    "either": {"oneOf": [{"type": "string", "default": "a"}, {"type": "object"}]},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "stop",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
DOCUMENTS = [{"title": "Ü 1", "text": "One\n<b>"}, {"title": "Two", "text": "", "n": 3}]


@contextmanager
def clock_of_transformers() -> Iterator[None]:
    """``strftime_now`` of transformers stands still at ``NOW``."""
    from transformers.utils import chat_template_utils

    class Now(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return NOW

    before, chat_template_utils.datetime = chat_template_utils.datetime, Now
    try:
        yield
    finally:
        chat_template_utils.datetime = before


@functools.cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(SPECIAL.values())}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=raw, **SPECIAL)


def theirs(source: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """transformers' rendering, or None where it refuses."""
    try:
        text = _tokenizer().apply_chat_template(
            messages, chat_template=source, tokenize=False, **options
        )
    except Exception:
        return None
    # its mark stays where a template writes the message twice
    return text.replace("CONTINUE_FINAL_MESSAGE_TAG ", "") if _continues(options) else text


@functools.cache
def _compiled(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, SPECIAL, now=lambda: NOW)


def ours(source: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    """Our rendering, or None where we refuse as a template's fault."""
    kwargs = {k: v for k, v in options.items() if k not in _NAMED}
    named = {k: v for k, v in options.items() if k in _NAMED}
    try:
        return _compiled(source).render(messages, **named, template_kwargs=kwargs)
    except RequestError as error:
        return None if error.kind is ErrorKind.TEMPLATE else error.message


_NAMED = ("tools", "documents", "add_generation_prompt", "continue_final_message")


def _continues(options: dict[str, Any]) -> bool:
    return bool(options.get("continue_final_message"))
