"""Answers and events of ``/``, ``/generate`` and ``/generate_stream``."""

from typing import Literal

from msgspec import UNSET, UnsetType

from frontend.schema import U32, U64
from frontend.schema.answers import Answer

FinishReason = Literal["length", "eos_token", "stop_sequence"]


class GeneratedToken(Answer, frozen=True, kw_only=True):
    """A token that was generated, or a candidate for one."""

    id: U32
    """Its number in the vocabulary."""
    text: str
    """The text that it adds; empty while a character is incomplete."""
    logprob: float | None
    """Log-probability after penalties, temperature and filters; null if it is not finite."""
    special: bool
    """Whether it is a special token, which `generated_text` leaves out."""


class PromptToken(Answer, frozen=True, kw_only=True):
    """A token of the prompt."""

    id: U32
    """Its number in the vocabulary."""
    text: str
    """Its text."""
    logprob: float | None
    """Log-probability given what stands before it; null for the first token."""


class SequenceDetails(Answer, frozen=True, kw_only=True):
    """How one sequence was generated."""

    finish_reason: FinishReason
    """Why it ended."""
    generated_tokens: U32
    """Number of its tokens, the end token included."""
    seed: U64 | None
    """The seed that was used; null if the most likely token was always taken."""
    prefill: list[PromptToken]
    """The prompt's tokens, if `decoder_input_details` asked for them and the server computes
    them; else empty."""
    tokens: list[GeneratedToken]
    """All generated tokens, special ones included."""
    top_tokens: list[list[GeneratedToken]] | UnsetType = UNSET
    """The likeliest candidates at each step, if `top_n_tokens` asked for them."""


class OtherSequence(SequenceDetails, frozen=True, kw_only=True):
    """A sequence that was not the best of `best_of`."""

    generated_text: str
    """Its text."""


class Details(SequenceDetails, frozen=True, kw_only=True):
    """How the answer was generated."""

    best_of_sequences: list[OtherSequence] | UnsetType = UNSET
    """The other sequences, if `best_of` asked for several."""


class GenerateAnswer(Answer, frozen=True, kw_only=True):
    """The answer of `/generate`."""

    generated_text: str
    """The generated text; the prompt stands before it if `return_full_text` asked for that."""
    details: Details | UnsetType = UNSET
    """There if `details` or `decoder_input_details` asked for it."""


class StreamDetails(Answer, frozen=True, kw_only=True):
    """How a streamed answer was generated."""

    finish_reason: FinishReason
    """Why it ended."""
    generated_tokens: U32
    """Number of tokens, the end token included."""
    seed: U64 | None
    """The seed that was used; null if the most likely token was always taken."""
    input_length: U32
    """Tokens of the prompt."""


class StreamEvent(Answer, frozen=True, kw_only=True):
    """One event of a native stream: one token."""

    index: U32
    """1 for the first token."""
    token: GeneratedToken
    """The token."""
    top_tokens: list[GeneratedToken] | UnsetType = UNSET
    """The likeliest candidates, if `top_n_tokens` asked for them."""
    generated_text: str | None
    """The whole text, in the last event; null before."""
    details: StreamDetails | None
    """In the last event, if `details` asked for it; else null."""
