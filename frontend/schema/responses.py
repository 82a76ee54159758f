"""The request of ``/v1/responses``, OpenAI's.

Types only. Fields that would change the answer and are not supported are refused by name, those of
chat completions that this API does not have among them. All others that are not listed are ignored.
"""

from typing import Any, Literal

import msgspec

from common.errors import ErrorKind, RequestError
from frontend.schema import U32, Effort
from frontend.schema.openai import UNSUPPORTED as UNSUPPORTED_IN_CHAT
from frontend.schema.openai import ChatBody

STATELESS = "nothing is stored on this server: send the whole conversation as `input`"
LOGPROBS = "message.output_text.logprobs"

UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "previous_response_id": ((), STATELESS),
    "conversation": ((), STATELESS),
    "prompt": ((), "no prompts are stored on this server: send `instructions` and `input`"),
    "background": ((False,), "an answer is given to the request that asks for it"),
    "truncation": (("disabled",), "nothing is dropped from a conversation that is too long"),
    "context_management": (([],), "no conversation is shortened here"),
    "moderation": ((), "nothing is moderated here"),
}
"""Fields that change the answer, with the values (besides null) that do not, and why they fail."""


class InputPart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a content."""

    type: str
    """`input_text`, `output_text`, `refusal`, `reasoning_text` or `summary_text`."""
    text: str | None = None
    """The text of the part."""
    refusal: str | None = None
    """The text of a part that is a refusal."""


class InputItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a conversation: a message, or what an answer held besides messages."""

    type: str | None = None
    """`message`, also if nothing is said; `function_call`, `function_call_output`, `reasoning`."""
    role: str | None = None
    """Who speaks in a message: `user`, `assistant`, `system` or `developer`."""
    content: str | list[InputPart] | None = None
    """What a message or reasoning says."""
    summary: list[InputPart] | None = None
    """Stands for reasoning whose content is missing."""
    call_id: str | None = None
    """Which call this is, or which one it is the output of."""
    name: str | None = None
    """The function that a call wanted."""
    arguments: str | None = None
    """The arguments of a call: JSON text of an object."""
    output: str | list[InputPart] | None = None
    """What came of a call."""


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call and the client runs."""

    type: str
    """Always `function`: all other tools would be run by the server."""
    name: str | None = None
    """Its name; required."""
    description: str | None = None
    """What it does, for the model to read."""
    parameters: dict[str, Any] | None = None
    """JSON schema of its arguments."""
    strict: bool | None = None
    """Accepted: calls that are demanded match `parameters` in any case."""


class AllowedTool(msgspec.Struct, frozen=True, kw_only=True):
    """One of the tools that may be called."""

    type: str
    """Always `function`."""
    name: str | None = None
    """Which function; required."""


class NamedChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the tools may be called."""

    type: str
    """`function`: the one that `name` names. `allowed_tools`: those of `tools`."""
    name: str | None = None
    """The function that is called."""
    mode: Literal["auto", "required"] | None = None
    """Whether there must be a call of the allowed tools."""
    tools: list[AllowedTool] | None = None
    """The allowed tools."""


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the model reasons; without a word its template decides."""

    effort: Effort | None = None
    """Told to templates that know an effort; `none` asks for no reasoning."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Accepted; the reasoning itself is answered, and no summary is written."""
    mode: Literal["standard"] | None = None
    """There is one mode."""


class TextFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the text of the answer must match."""

    type: Literal["text", "json_object", "json_schema"]
    """Any text, any JSON object, or JSON that matches `schema`."""
    name: str | None = None
    """Repeated in the answer."""
    description: str | None = None
    """Repeated in the answer."""
    schema: dict[str, Any] | None = None
    """The JSON schema."""
    strict: bool | None = None
    """Accepted: the schema is kept in any case."""


class TextConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the text of the answer is written."""

    format: TextFormat | None = None
    """What it must match."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """Told to templates that know a verbosity."""


class ResponsesStreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``stream_options``."""

    include_obfuscation: Literal[False] | None = None
    """Events carry no padding."""


Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
"""Only the first adds something: reasoning is answered as plain text, and there is nothing here
that the others could add to."""


class ResponsesBody(msgspec.Struct, frozen=True, kw_only=True):
    """``/v1/responses``."""

    model: str | None = None
    """Any name: there is one model. It is repeated in the answer."""
    input: str | list[InputItem]
    """What the user says, or the whole conversation: nothing is stored between requests."""
    instructions: str | None = None
    """A system message before the conversation."""
    max_output_tokens: U32 | None = None
    """Most tokens to generate, at least 1. Without it, the context is filled."""
    temperature: float | None = None
    """What logits are divided by before drawing. 0 takes the likeliest token."""
    top_p: float | None = None
    """Only the likeliest tokens with this total probability are drawn from."""
    stream: bool | None = None
    """Whether to answer event by event."""
    stream_options: ResponsesStreamOptions | None = None
    """What a stream carries."""
    tools: list[FunctionTool] | None = None
    """Functions that the model may call."""
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | None = None
    """Who decides about calls: the model (`auto`), or the client."""
    parallel_tool_calls: bool | None = None
    """Whether there may be several calls in one answer."""
    max_tool_calls: U32 | None = None
    """Accepted: it counts only calls of tools that the server would run."""
    text: TextConfig | None = None
    """How the text of the answer is written."""
    reasoning: ReasoningConfig | None = None
    """How the model reasons."""
    include: list[Include] | None = None
    """What the answer holds besides: `message.output_text.logprobs`."""
    top_logprobs: U32 | None = None
    """So many of the likeliest candidates are reported with each token; `include` must ask for
    log-probabilities."""
    metadata: dict[str, str] | None = None
    """Repeated in the answer: up to 16 texts with names."""
    store: bool | None = None
    """Accepted; nothing is stored."""
    service_tier: str | None = None
    """Accepted; there is one tier."""
    user: str | None = None
    """Repeated in the answer, and not used."""
    safety_identifier: str | None = None
    """Repeated in the answer, and not used."""
    prompt_cache_key: str | None = None
    """Repeated in the answer, and not used: equal beginnings of prompts are found without."""
    cache_salt: str | None = None
    """Cached prefixes are shared only among requests with the same one, as in vLLM."""


_OF_CHAT = frozenset({*ChatBody.__struct_fields__, *UNSUPPORTED_IN_CHAT}) - frozenset(
    ResponsesBody.__struct_fields__
)


def refuse_unsupported(document: dict[str, Any]) -> None:
    """Raise RequestError (VALIDATION) for a field that would change the answer if it worked."""
    for name, (harmless, why) in UNSUPPORTED.items():
        value = document.get(name)
        if value is not None and value not in harmless:
            raise RequestError(ErrorKind.VALIDATION, f"`{name}` is not supported: {why}")
    for name in sorted(_OF_CHAT & document.keys()):
        if document[name] is not None:
            raise RequestError(ErrorKind.VALIDATION, f"`{name}` is no field of `/v1/responses`")
