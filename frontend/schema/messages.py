"""The requests of ``/v1/messages`` and ``/v1/messages/count_tokens``, Anthropic's.

Types only. Fields that would change the answer and are not supported are refused by name; all
others that are not listed here are ignored, as are the betas that headers ask for.
"""

from typing import Annotated, Any, Literal

import msgspec

from common.errors import ErrorKind, RequestError
from frontend.schema import U32

TopK = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "cache_salt": (),
    "compaction": (),
    "container": (),
    "context_management": ({}, {"edits": []}),
    "fallbacks": ([],),
    "mcp_servers": ([],),
    "output_format": (),
    "speed": ("standard",),
    "thread": (),
}
"""Fields that change the answer, with the values (besides null) that do not. `cache_salt` is of
other routes: who sends it must not believe to be protected."""

_KEPT_THINKING = "clear_thinking_"
"""Begins the type of an edit which, if it keeps all, leaves the conversation as it is."""


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A piece of text."""

    text: str


class ImageBlock(msgspec.Struct, frozen=True, kw_only=True, tag="image"):
    """Refused: only text is read."""


class DocumentBlock(msgspec.Struct, frozen=True, kw_only=True, tag="document"):
    """Refused: only text is read."""


class ToolUseBlock(msgspec.Struct, frozen=True, kw_only=True, tag="tool_use"):
    """A call that the model wanted."""

    id: str
    name: str
    input: dict[str, Any]


class ThinkingBlock(msgspec.Struct, frozen=True, kw_only=True, tag="thinking"):
    """What the model wrote to itself; its signature is not looked at."""

    thinking: str


class RedactedThinkingBlock(msgspec.Struct, frozen=True, kw_only=True, tag="redacted_thinking"):
    """Another server's secret: there is nothing in it that this model could read."""


class ToolResultBlock(msgspec.Struct, frozen=True, kw_only=True, tag="tool_result"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None


UserBlock = TextBlock | ToolResultBlock | ImageBlock | DocumentBlock
AssistantBlock = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock


class UserMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="user"):
    """A turn of the user, or of the program that ran the tools."""

    content: str | list[UserBlock]


class AssistantMessage(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="assistant"
):
    """A turn of the model. The last message may be one that the model is to continue."""

    content: str | list[AssistantBlock]


class SystemMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="role", tag="system"):
    """Instructions that come in the middle of a conversation."""

    content: str | list[TextBlock]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the client runs."""

    type: str | None = None
    """Only ``custom``: all others would be run by the server."""
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON schema of its input; required."""


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Who decides about calls."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    """Of the tool that ``tool`` means."""
    disable_parallel_tool_use: bool | None = None
    """Whether there is one call at most."""


class ThinkingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the model thinks first; without a word its template decides."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: U32 | None = None
    """Told to templates that know a budget; nothing else holds the model to it."""
    display: Literal["summarized", "omitted"] | None = None
    """``omitted``: the text of the thinking is not sent."""


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the text of the answer must match."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the answer is written."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """Told to templates that know an effort."""
    format: OutputFormat | None = None


class CountTokensBody(msgspec.Struct, frozen=True, kw_only=True):
    """``/v1/messages/count_tokens``: what makes the prompt."""

    model: str | None = None
    messages: list[UserMessage | AssistantMessage | SystemMessage]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None


class MessagesBody(CountTokensBody, frozen=True, kw_only=True):
    """``/v1/messages``."""

    max_tokens: U32
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: TopK | None = None


def refuse_unsupported(document: dict[str, Any]) -> None:
    """Raise RequestError (VALIDATION) for a field that would change the answer if it worked."""
    for name, harmless in UNSUPPORTED.items():
        value = document.get(name)
        if value is None or value in harmless:
            continue
        if name == "context_management" and _keeps_all(value):
            continue
        raise RequestError(ErrorKind.VALIDATION, f"`{name}` is not supported")


def _keeps_all(value: Any) -> bool:
    """Whether the edits of ``context_management`` leave the conversation as it is."""
    edits = value.get("edits") if isinstance(value, dict) and value.keys() == {"edits"} else None
    return isinstance(edits, list) and all(
        isinstance(edit, dict)
        and str(edit.get("type")).startswith(_KEPT_THINKING)
        and edit.get("keep") == "all"
        for edit in edits
    )
