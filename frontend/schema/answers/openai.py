"""Answers and chunks of ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from frontend.schema import U32
from frontend.schema.answers import Answer

Byte = Annotated[int, Meta(ge=0, le=255)]


class PromptTokensDetails(Answer, frozen=True, kw_only=True):
    """How the tokens of the prompts were read."""

    cached_tokens: U32
    """So many of them were in the cache."""


class Usage(Answer, frozen=True, kw_only=True):
    """Tokens of a request."""

    prompt_tokens: U32
    """Of all prompts."""
    completion_tokens: U32
    """Of all that was generated, end tokens included."""
    total_tokens: U32
    """Both."""
    prompt_tokens_details: PromptTokensDetails | UnsetType = UNSET
    """About the prompts; not in TGI's dialect."""


class CalledFunction(Answer, frozen=True, kw_only=True):
    """The function of a tool call."""

    name: str
    """Which function."""
    arguments: str
    """JSON text of an object."""
    description: UnsetType | None = UNSET
    """Only in TGI's dialect."""


class ToolCall(Answer, frozen=True, kw_only=True):
    """A call that the model wants to be made."""

    id: str
    """To be repeated as `tool_call_id` of the message with the result."""
    type: Literal["function"]
    """Always `function`."""
    function: CalledFunction
    """The call itself."""


class TokenLogprob(Answer, frozen=True, kw_only=True):
    """A candidate and its log-probability."""

    token: str
    """Its text."""
    logprob: float | None
    """After penalties, temperature and filters; null if it is not finite."""
    bytes: list[Byte] | UnsetType = UNSET
    """Its text in UTF-8."""


class ChosenLogprob(TokenLogprob, frozen=True, kw_only=True):
    """A generated token with its log-probability."""

    top_logprobs: list[TokenLogprob]
    """The likeliest candidates, as many as `top_logprobs` asked for."""


class ChatLogprobs(Answer, frozen=True, kw_only=True):
    """Log-probabilities of a chat answer."""

    content: list[ChosenLogprob]
    """One entry per token."""


class AnswerMessage(Answer, frozen=True, kw_only=True):
    """What the model says."""

    role: Literal["assistant"]
    """Always `assistant`."""
    content: str | UnsetType | None = UNSET
    """The text; null if the answer consists of tool calls."""
    reasoning_content: str | UnsetType = UNSET
    """What a reasoning model wrote to itself before."""
    tool_calls: list[ToolCall] | UnsetType = UNSET
    """The calls that the model wants."""


class ChatChoice(Answer, frozen=True, kw_only=True):
    """One answer to the conversation."""

    index: U32
    """Its number among the choices."""
    message: AnswerMessage
    """The answer."""
    logprobs: ChatLogprobs | None
    """There if `logprobs` asked for it."""
    finish_reason: str
    """Why it ended: `stop`, `length` or `tool_calls`; in TGI's dialect also `stop_sequence`."""
    stop_reason: str | int | UnsetType | None = UNSET
    """As vLLM: the stop string, or the token of `stop_token_ids`, that ended it; null if none did.
    Not in TGI's dialect."""


class Stamped(Answer, frozen=True, kw_only=True):
    """What identifies an answer."""

    id: str
    """The same in all chunks of a stream."""
    created: int
    """Seconds since the epoch."""
    model: str
    """The model that answered."""
    system_fingerprint: str
    """Version of the server."""


class ChatCompletion(Stamped, frozen=True, kw_only=True):
    """The answer of `/v1/chat/completions`."""

    object: Literal["chat.completion"]
    """What this is."""
    choices: list[ChatChoice]
    """As many as `n` asked for."""
    usage: Usage
    """Tokens of the request."""


class CalledFunctionDelta(Answer, frozen=True, kw_only=True):
    """More of a tool call's function."""

    name: str | UnsetType | None = UNSET
    """In the first piece of a call."""
    arguments: str
    """More of the JSON text."""


class ToolCallDelta(Answer, frozen=True, kw_only=True):
    """More of a tool call."""

    index: U32
    """Which of the answer's calls."""
    id: str | UnsetType = UNSET
    """To be repeated as `tool_call_id` of the message with the result."""
    type: Literal["function"] | UnsetType = UNSET
    """Always `function`."""
    function: CalledFunctionDelta
    """The piece."""


class ChatDelta(Answer, frozen=True, kw_only=True):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | UnsetType = UNSET
    """Always `assistant`."""
    content: str | UnsetType | None = UNSET
    """More text."""
    reasoning_content: str | UnsetType = UNSET
    """More of what a reasoning model writes to itself."""
    tool_calls: list[ToolCallDelta] | UnsetType | None = UNSET
    """More of the calls that the model wants; in TGI's dialect null where there is text."""


class ChatChunkChoice(Answer, frozen=True, kw_only=True):
    """More of one choice."""

    index: U32
    """Which choice."""
    delta: ChatDelta
    """What is new."""
    logprobs: ChatLogprobs | None
    """Of the new tokens, if `logprobs` asked for it."""
    finish_reason: str | None
    """In the last chunk of the choice; null before, in TGI's completions empty."""
    stop_reason: str | int | UnsetType | None = UNSET
    """With `finish_reason`, as vLLM: the stop string, or the token of `stop_token_ids`, that ended
    it; null if none did. Not in TGI's dialect."""


class ChatChunk(Stamped, frozen=True, kw_only=True):
    """One event of a chat stream."""

    object: Literal["chat.completion.chunk"]
    """What this is."""
    choices: list[ChatChunkChoice]
    """Empty in the chunk with the usage."""
    usage: Usage | None
    """In one last chunk, if `stream_options.include_usage` asked for it; else null."""


class CompletionLogprobs(Answer, frozen=True, kw_only=True):
    """Log-probabilities of a completion, in lists of the same length."""

    tokens: list[str]
    """Text of each token."""
    token_logprobs: list[float | None]
    """Log-probability of each token; null where there is none."""
    top_logprobs: list[dict[str, float | None] | None] | None
    """The likeliest candidates at each token."""
    text_offset: list[int]
    """Where each token begins in the text, in characters."""


class CompletionChoice(Answer, frozen=True, kw_only=True):
    """One continuation."""

    index: U32
    """Its number; the choices of a prompt stand together, in the order of the prompts."""
    text: str
    """The text."""
    logprobs: CompletionLogprobs | None
    """There if `logprobs` asked for it."""
    finish_reason: str
    """Why it ended: `stop` or `length`; in TGI's dialect also `stop_sequence`."""
    stop_reason: str | int | UnsetType | None = UNSET
    """As vLLM: the stop string, or the token of `stop_token_ids`, that ended it; null if none did.
    Not in TGI's dialect."""


class Completion(Stamped, frozen=True, kw_only=True):
    """The answer of `/v1/completions`."""

    object: Literal["text_completion"]
    """What this is."""
    choices: list[CompletionChoice]
    """One per prompt and choice."""
    usage: Usage
    """Tokens of the request."""


class CompletionChunkChoice(Answer, frozen=True, kw_only=True):
    """More of one continuation."""

    index: U32
    """Which choice."""
    text: str
    """More text."""
    logprobs: CompletionLogprobs | None
    """Of the new tokens, if `logprobs` asked for it."""
    finish_reason: str | None
    """In the last chunk of the choice; null before, in TGI's completions empty."""
    stop_reason: str | int | UnsetType | None = UNSET
    """With `finish_reason`, as vLLM: the stop string, or the token of `stop_token_ids`, that ended
    it; null if none did. Not in TGI's dialect."""


class CompletionChunk(Stamped, frozen=True, kw_only=True):
    """One event of a completion stream."""

    object: Literal["text_completion"]
    """What this is."""
    choices: list[CompletionChunkChoice]
    """Empty in the chunk with the usage."""
    usage: Usage | UnsetType | None = UNSET
    """In one last chunk, if `stream_options.include_usage` asked for it; in TGI's dialect with the
    last chunk of each choice."""
