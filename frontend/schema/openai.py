"""The requests of ``/v1/chat/completions`` and ``/v1/completions``.

Lenient where OpenAI's users are: nulls are accepted everywhere, ``stop`` may be one string. Fields
that would change the answer and are not supported are refused by name (``UNSUPPORTED``); all
others that are not listed here are ignored.
"""

from typing import Any

import msgspec

from common.errors import ErrorKind, RequestError
from frontend.schema import I32, U32, U64

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1, 0),
    "echo": (False,),
    "use_beam_search": (False,),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
    "chat_template": (),
    "min_p": (0,),
    "prompt_embeds": (),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "prompt_logprobs": (0,),
    "logits_processors": ([],),
    "grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "adapter_id": (),
    "watermark": (False,),
}
"""Fields that change the answer, with the values (besides null) that do not."""


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``."""

    include_usage: bool | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class OpenAIBody(msgspec.Struct, frozen=True, kw_only=True):
    """What both routes share."""

    model: str | None = None
    max_tokens: U32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: I32 | None = None
    typical_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | list[float] | None = None
    seed: U64 | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    min_tokens: U32 | None = None


class ChatBody(OpenAIBody, frozen=True, kw_only=True):
    """``/v1/chat/completions``."""

    messages: list[Message]
    max_completion_tokens: U32 | None = None
    logprobs: bool | None = None
    top_logprobs: U32 | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(OpenAIBody, frozen=True, kw_only=True):
    """``/v1/completions``."""

    prompt: Any
    """A string, a list of strings, a list of token ids, or a list of such lists."""
    suffix: str | None = None
    logprobs: U32 | None = None


def refuse_unsupported(document: Any) -> None:
    """Raise RequestError (VALIDATION) for a field that would change the answer if it worked."""
    if not isinstance(document, dict):
        return
    for name, harmless in UNSUPPORTED.items():
        value = document.get(name)
        if value is None or any(value == other for other in harmless):
            continue
        raise RequestError(ErrorKind.VALIDATION, f"`{name}` is not supported yet")
