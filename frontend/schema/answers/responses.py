"""Answers and events of ``/v1/responses``."""

from typing import Any, Literal

from frontend.schema import U32
from frontend.schema.answers import Answer
from frontend.schema.answers.errors import OpenAIError
from frontend.schema.answers.openai import ChosenLogprob

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Answer, frozen=True, kw_only=True, tag="output_text"):
    """The text of a message."""

    text: str
    """The text; empty where a stream begins the part."""
    annotations: list[dict[str, Any]]
    """Always empty."""
    logprobs: list[ChosenLogprob]
    """One entry per token, if `include` asked for them."""


class ReasoningText(Answer, frozen=True, kw_only=True, tag="reasoning_text"):
    """The text of reasoning."""

    text: str
    """The text; empty where a stream begins the part."""


class OutputItem(Answer, frozen=True, kw_only=True):
    """What all items have."""

    id: str
    """Names the item."""
    status: ItemStatus
    """`incomplete`: it was cut off."""


class OutputMessage(OutputItem, frozen=True, kw_only=True, tag="message"):
    """What the model says."""

    role: Literal["assistant"]
    """Always `assistant`."""
    content: list[OutputText]
    """One part; none where a stream begins the item."""


class OutputReasoning(OutputItem, frozen=True, kw_only=True, tag="reasoning"):
    """What the model wrote to itself."""

    content: list[ReasoningText]
    """One part; none where a stream begins the item."""
    summary: list[dict[str, Any]]
    """Always empty: the reasoning itself is in `content`."""
    encrypted_content: None
    """Always null."""


class OutputCall(OutputItem, frozen=True, kw_only=True, tag="function_call"):
    """A call that the model wants to be made."""

    call_id: str
    """To be repeated as `call_id` of its output."""
    name: str
    """Which function."""
    arguments: str
    """JSON text of an object; empty where a stream begins the item."""


AnyItem = OutputMessage | OutputReasoning | OutputCall
AnyPart = OutputText | ReasoningText


class InputTokensDetails(Answer, frozen=True, kw_only=True):
    """How the tokens of the prompt were read."""

    cached_tokens: U32
    """So many of them were in the cache."""
    cache_write_tokens: U32
    """Always 0."""


class OutputTokensDetails(Answer, frozen=True, kw_only=True):
    """What the generated tokens are."""

    reasoning_tokens: U32
    """So many of them are reasoning."""


class ResponsesUsage(Answer, frozen=True, kw_only=True):
    """Tokens of a request."""

    input_tokens: U32
    """Of the prompt."""
    input_tokens_details: InputTokensDetails
    """About the prompt."""
    output_tokens: U32
    """Of all that was generated, end tokens included."""
    output_tokens_details: OutputTokensDetails
    """About what was generated."""
    total_tokens: U32
    """Both."""


class ResponseFailure(Answer, frozen=True, kw_only=True):
    """Why a response failed."""

    code: Literal["server_error", "rate_limit_exceeded"]
    """What kind of failure it is."""
    message: str
    """One sentence."""


class IncompleteDetails(Answer, frozen=True, kw_only=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]
    """The limit was reached."""


class ResponsesAnswer(Answer, frozen=True, kw_only=True):
    """The answer of `/v1/responses`: what was said, and how it was asked for."""

    id: str
    """Names the response. Nothing is stored under this name."""
    object: Literal["response"]
    """Always `response`."""
    created_at: int
    """Seconds since 1970."""
    completed_at: int | None
    """Seconds since 1970; null if it was not completed."""
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    """How it went."""
    error: ResponseFailure | None
    """Why it failed."""
    incomplete_details: IncompleteDetails | None
    """Why it is incomplete."""
    model: str
    """The model that answered, by the name it was asked by."""
    output: list[AnyItem]
    """What the model says; empty where a stream begins."""
    usage: ResponsesUsage | None
    """Tokens of the request; null until it has ended."""
    background: Literal[False]
    """Always false."""
    instructions: str | None
    """As given."""
    max_output_tokens: U32 | None
    """As given."""
    max_tool_calls: U32 | None
    """As given."""
    metadata: dict[str, str]
    """As given."""
    parallel_tool_calls: bool
    """Whether there may be several calls."""
    previous_response_id: None
    """Always null."""
    prompt_cache_key: str | None
    """As given."""
    reasoning: dict[str, str | None]
    """`effort` as given; `summary` is always null."""
    safety_identifier: str | None
    """As given."""
    service_tier: Literal["default"]
    """Always `default`."""
    store: Literal[False]
    """Always false: nothing is stored."""
    temperature: float
    """As given, or 1."""
    text: dict[str, Any]
    """`format` and `verbosity` as given, or what counts without them."""
    tool_choice: str | dict[str, Any]
    """As given, or `auto`."""
    tools: list[dict[str, Any]]
    """As given."""
    top_logprobs: U32
    """As given, or 0."""
    top_p: float
    """As given, or 1."""
    truncation: Literal["disabled"]
    """Always `disabled`."""
    user: str | None
    """As given."""


class NumberedEvent(Answer, frozen=True, kw_only=True):
    """What all events have."""

    sequence_number: U32
    """Events are numbered from 0."""


class ResponseEvent(NumberedEvent, frozen=True, kw_only=True):
    """An event of the whole response."""

    response: ResponsesAnswer
    """The response as far as it is known."""


class ResponseCreated(ResponseEvent, frozen=True, kw_only=True, tag="response.created"):
    """The first event of a stream."""


class ResponseInProgress(ResponseEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    """The second event of a stream."""


class ResponseCompleted(ResponseEvent, frozen=True, kw_only=True, tag="response.completed"):
    """The last event of a stream."""


class ResponseIncomplete(ResponseEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    """The last event of a stream that reached `max_output_tokens`."""


class ResponseFailed(ResponseEvent, frozen=True, kw_only=True, tag="response.failed"):
    """The last event of a stream that failed; it follows an event `error`."""


class ResponseErrorEvent(NumberedEvent, frozen=True, kw_only=True, tag="error"):
    """What went wrong in a stream."""

    code: str
    """What kind of error it is."""
    message: str
    """One sentence."""
    param: str | None
    """The field that is wrong, if it is one."""
    error: OpenAIError
    """The same in the form of other answers."""


class PlacedEvent(NumberedEvent, frozen=True, kw_only=True):
    """An event of one item."""

    output_index: U32
    """Number of the item."""


class ItemAdded(PlacedEvent, frozen=True, kw_only=True, tag="response.output_item.added"):
    """An item begins."""

    item: AnyItem
    """The item, still empty."""


class ItemDone(PlacedEvent, frozen=True, kw_only=True, tag="response.output_item.done"):
    """An item has ended."""

    item: AnyItem
    """The whole item."""


class ItemEvent(PlacedEvent, frozen=True, kw_only=True):
    """An event of what an item holds."""

    item_id: str
    """Which item."""


class PartEvent(ItemEvent, frozen=True, kw_only=True):
    """An event of an item's part."""

    content_index: Literal[0]
    """Number of the part."""


class PartAdded(PartEvent, frozen=True, kw_only=True, tag="response.content_part.added"):
    """A part begins."""

    part: AnyPart
    """The part, still empty."""


class PartDone(PartEvent, frozen=True, kw_only=True, tag="response.content_part.done"):
    """A part has ended."""

    part: AnyPart
    """The whole part."""


class OutputTextDelta(PartEvent, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """More text."""

    delta: str
    """The text."""
    logprobs: list[ChosenLogprob]
    """Of its tokens, if `include` asked for them."""


class OutputTextDone(PartEvent, frozen=True, kw_only=True, tag="response.output_text.done"):
    """A text has ended."""

    text: str
    """The whole text."""
    logprobs: list[ChosenLogprob]
    """Of its tokens, if `include` asked for them."""


class ReasoningDelta(PartEvent, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    """More reasoning."""

    delta: str
    """The text."""


class ReasoningDone(PartEvent, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    """Reasoning has ended."""

    text: str
    """The whole text."""


class ArgumentsDelta(
    ItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"
):
    """More of a call's arguments."""

    delta: str
    """A piece of the JSON text of an object."""


class ArgumentsDone(
    ItemEvent, frozen=True, kw_only=True, tag="response.function_call_arguments.done"
):
    """A call's arguments have ended."""

    name: str
    """Which function."""
    arguments: str
    """The whole JSON text."""
