"""The requests of ``/v1/chat/completions`` and ``/v1/completions``.

Lenient where OpenAI's users are: nulls are accepted everywhere, ``stop`` may be one string. Fields
that would change the answer and are not supported are refused by name (``UNSUPPORTED``); all
others that are not listed here are ignored.
"""

from typing import Any

import msgspec

from common.errors import ErrorKind, RequestError
from frontend.schema import I32, U32, Effort, Seed

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "do_sample": (True,),
    "truncate": (),
    "truncate_prompt_tokens": (),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
    "chat_template": (),
    "prompt_embeds": (),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "prompt_logprobs": (0,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "thinking_token_budget": (),
    "logits_processors": ([],),
    "adapter_id": (),
    "watermark": (False,),
}
"""Fields that change the answer, with the values (besides null) that do not."""
_ELSEWHERE = {
    "adapter_id": "name the adapter as `model`",
    "watermark": "ask for it on the native routes, as /generate",
}
"""What to do about fields that are of other routes."""


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``."""

    include_usage: bool | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another name for ``reasoning_content``."""
    refusal: str | None = None
    """Stands for ``content`` where a model refused."""
    function_call: dict[str, Any] | None = None
    """OpenAI's older form of a single tool call."""
    audio: dict[str, Any] | None = None
    """Refused: only text is read."""


class FunctionDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON schema of its arguments."""
    arguments: dict[str, Any] | None = None
    """TGI's other name for ``parameters``."""


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``tools``."""

    type: str = "function"
    """Only `function`: all others would be run by the server."""
    function: FunctionDefinition | None = None
    """The function; required."""


class OpenAIBody(msgspec.Struct, frozen=True, kw_only=True):
    """What both routes share."""

    model: str | None = None
    max_tokens: U32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: I32 | None = None
    min_p: float | None = None
    typical_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | list[float] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop_token_ids: list[U32] | None = None
    """Tokens that end the text beside the model's own, and are no part of it, as in vLLM."""
    include_stop_str_in_output: bool | None = None
    """Whether what ends the text is part of it: a stop string, a token of ``stop_token_ids``."""
    skip_special_tokens: bool | None = None
    """Whether special tokens are left out of the text; yes if nothing is said."""
    add_special_tokens: bool | None = None
    """Whether the tokenizer puts its special tokens around the prompt; if nothing is said, it does
    to those of completions, and not to what a chat template has written."""
    ignore_eos: bool | None = None
    min_tokens: U32 | None = None
    n: U32 | None = None
    """Choices for each prompt."""
    priority: I32 | None = None
    """Lower is sooner."""
    cache_salt: str | None = None
    """Cached prefixes are shared only among requests with the same one, as in vLLM: others cannot
    find out by its speed, or by ``cached_tokens``, what a prompt begins with."""
    response_format: dict[str, Any] | None = None
    """What the answer must match: OpenAI's forms and TGI's."""
    grammar: dict[str, Any] | None = None
    """Another name for ``response_format``, TGI's."""
    structured_outputs: dict[str, Any] | None = None
    """As vLLM has it: an object with one of `json`, `regex`, `choice`, `grammar`, `json_object`."""
    guided_json: dict[str, Any] | str | None = None
    """As older clients of vLLM have it: a JSON schema that the answer must match."""
    guided_regex: str | None = None
    """Likewise: a regular expression that the answer must match."""
    guided_choice: list[str] | None = None
    """Likewise: texts, one of which is the answer."""
    guided_grammar: str | None = None
    """Likewise: a grammar in llama.cpp's notation (GBNF), or in Lark."""
    timeout_ms: U32 | None = None
    """Milliseconds after which the client wants no answer any more; 0 is no limit."""
    user: str | None = None
    """Accepted, and not used."""


class ChatBody(OpenAIBody, frozen=True, kw_only=True):
    """``/v1/chat/completions``."""

    messages: list[Message]
    max_completion_tokens: U32 | None = None
    logprobs: bool | None = None
    top_logprobs: U32 | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: str | dict[str, Any] | None = None
    """``auto``, ``none``, ``required``, the name of a tool, or an object that names one.

    Or ``{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": [{"type": "function",
    "function": {"name": …}}, …]}}``: ``auto`` or ``required`` as if these tools were all."""
    tool_prompt: str | None = None
    """Instead of what the model is told about calls where its template does not know tools."""
    parallel_tool_calls: bool | None = None
    documents: list[dict[str, Any]] | None = None
    """For templates that put documents before the conversation."""
    add_generation_prompt: bool | None = None
    """Whether the prompt ends where the assistant's turn begins; yes if nothing is said."""
    continue_final_message: bool | None = None
    """Whether the last message is continued; if nothing is said, one of the assistant's is."""
    reasoning_effort: Effort | None = None
    """Told to templates that know an effort; ``none`` asks for no reasoning."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables of the template."""


class CompletionBody(OpenAIBody, frozen=True, kw_only=True):
    """``/v1/completions``."""

    prompt: Any
    """A string, a list of strings, a list of token ids, or a list of such lists."""
    suffix: str | None = None
    logprobs: U32 | None = None
    """How many of the most likely tokens are reported with each."""
    echo: bool | None = None
    """Whether the prompt stands before the text."""
    best_of: U32 | None = None
    """So many are generated for each prompt; the likeliest ``n`` are answered."""


def refuse_unsupported(document: Any) -> None:
    """Raise RequestError (VALIDATION) for a field that would change the answer if it worked."""
    if not isinstance(document, dict):
        return
    for name, harmless in UNSUPPORTED.items():
        value = document.get(name)
        if value is None or any(value == other for other in harmless):
            continue
        instead = _ELSEWHERE.get(name)
        why = "is not supported yet" if instead is None else f"is not taken here: {instead}"
        raise RequestError(ErrorKind.VALIDATION, f"`{name}` {why}")
