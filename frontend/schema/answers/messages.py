"""Answers and events of ``/v1/messages`` and ``/v1/messages/count_tokens``."""

from typing import Any, Literal

from frontend.schema import U32
from frontend.schema.answers import Answer

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class AnswerText(Answer, frozen=True, kw_only=True, tag="text"):
    """A block of text."""

    text: str
    """The text; empty where a stream begins the block."""


class AnswerThinking(Answer, frozen=True, kw_only=True, tag="thinking"):
    """A block of what the model wrote to itself."""

    thinking: str
    """The text; empty if `thinking.display` is `omitted`, or where a stream begins the block."""
    signature: str
    """A constant, for clients that want one."""


class AnswerToolUse(Answer, frozen=True, kw_only=True, tag="tool_use"):
    """A call that the model wants to be made."""

    id: str
    """To be repeated as `tool_use_id` of its result."""
    name: str
    """Which tool."""
    input: dict[str, Any]
    """Its input; empty where a stream begins the block."""


AnswerBlock = AnswerText | AnswerThinking | AnswerToolUse


class MessagesUsage(Answer, frozen=True, kw_only=True):
    """Tokens of a request."""

    input_tokens: U32
    """Of the prompt, but for those that were in the cache."""
    cache_creation_input_tokens: U32
    """Always 0."""
    cache_read_input_tokens: U32
    """Of the prompt, those that were in the cache."""
    output_tokens: U32
    """Of the answer, so far."""


class MessagesAnswer(Answer, frozen=True, kw_only=True, tag="message"):
    """The answer of `/v1/messages`."""

    id: str
    """Names the answer."""
    role: Literal["assistant"]
    """Always `assistant`."""
    model: str
    """The model that answered, by the name it was asked by."""
    content: list[AnswerBlock]
    """What the model says; empty where a stream begins."""
    stop_reason: StopReason | None
    """Why it ended; null where a stream begins."""
    stop_sequence: str | None
    """The stop sequence that ended it."""
    usage: MessagesUsage
    """Tokens of the request."""


class TokenCount(Answer, frozen=True, kw_only=True):
    """The answer of `/v1/messages/count_tokens`."""

    input_tokens: U32
    """Tokens of the prompt."""


class MessageStart(Answer, frozen=True, kw_only=True, tag="message_start"):
    """The first event of a stream."""

    message: MessagesAnswer
    """The answer, still empty."""


class Ping(Answer, frozen=True, kw_only=True, tag="ping"):
    """An event that says nothing."""


class BlockStart(Answer, frozen=True, kw_only=True, tag="content_block_start"):
    """A block of the answer begins."""

    index: U32
    """Its number."""
    content_block: AnswerBlock
    """The block, still empty."""


class TextDelta(Answer, frozen=True, kw_only=True, tag="text_delta"):
    """More text."""

    text: str
    """The text."""


class ThinkingDelta(Answer, frozen=True, kw_only=True, tag="thinking_delta"):
    """More of what the model writes to itself."""

    thinking: str
    """The text."""


class SignatureDelta(Answer, frozen=True, kw_only=True, tag="signature_delta"):
    """The end of a block of thinking."""

    signature: str
    """A constant, for clients that want one."""


class InputDelta(Answer, frozen=True, kw_only=True, tag="input_json_delta"):
    """More of a call's input."""

    partial_json: str
    """A piece of the JSON text of an object."""


class BlockDelta(Answer, frozen=True, kw_only=True, tag="content_block_delta"):
    """More of a block."""

    index: U32
    """Which block."""
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta
    """What is new."""


class BlockStop(Answer, frozen=True, kw_only=True, tag="content_block_stop"):
    """A block has ended."""

    index: U32
    """Which block."""


class MessageStop(Answer, frozen=True, kw_only=True):
    """Why a message ended."""

    stop_reason: StopReason
    """The reason."""
    stop_sequence: str | None
    """The stop sequence that ended it."""


class MessageDelta(Answer, frozen=True, kw_only=True, tag="message_delta"):
    """What is known at the end of a message."""

    delta: MessageStop
    """Why it ended."""
    usage: MessagesUsage
    """Tokens of the request."""


class MessageEnd(Answer, frozen=True, kw_only=True, tag="message_stop"):
    """The last event of a stream."""
