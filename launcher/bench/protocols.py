"""The three ways to ask for a stream of text: bodies of requests, and what an event says.

Pure: JSON values in and out. To add an interface, add a function pair and its row in ``PROTOCOLS``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.bench.scenarios import Work

Event = dict[str, Any]


@dataclass(frozen=True)
class Asking:
    """What is the same for all requests of a run."""

    model: str
    ignore_eos: bool = True
    """Have answers go on to their full length, where the interface knows how to ask for that."""


@dataclass(frozen=True)
class Piece:
    """What one event said."""

    timed: bool = False
    """It carries generated text (or the token of an incomplete character)."""
    last: bool = False
    """The answer is complete."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class Protocol:
    """One interface."""

    name: str
    backend: str
    """What ``vllm bench serve`` calls it in its results."""
    path: str
    body: Callable[[Work, Asking], dict[str, Any]]
    read: Callable[[Event], Piece]
    """May raise LookupError, TypeError, AttributeError for an event of another shape."""


def _tgi_body(work: Work, asking: Asking) -> dict[str, Any]:
    return {
        "inputs": work.text,
        "parameters": {"max_new_tokens": work.max_tokens, "details": True},
    }


def _tgi_read(event: Event) -> Piece:
    if "error" in event:
        return Piece(failure=str(event["error"]))
    details = event.get("details") or {}
    return Piece(
        timed=event.get("token") is not None,
        last=event.get("generated_text") is not None,
        input_tokens=details.get("input_length"),
        output_tokens=details.get("generated_tokens"),
    )


def _openai_body(work: Work, asking: Asking) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": asking.model,
        "max_tokens": work.max_tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if asking.ignore_eos:
        body["ignore_eos"] = True
    return body


def _completions_body(work: Work, asking: Asking) -> dict[str, Any]:
    return {**_openai_body(work, asking), "prompt": work.text}


def _chat_body(work: Work, asking: Asking) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[number % 2], "content": turn} for number, turn in enumerate(work.turns)
    ]
    return {**_openai_body(work, asking), "messages": messages}


def _openai_read(event: Event, carries: Callable[[Event], bool]) -> Piece:
    if event.get("error"):
        error = event["error"]
        return Piece(failure=str(error.get("message", error) if isinstance(error, dict) else error))
    usage = event.get("usage") or {}
    choices = event.get("choices") or []
    ended = any(choice.get("finish_reason") for choice in choices)
    return Piece(
        timed=any(carries(choice) for choice in choices),
        last=ended,
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
    )


def _completions_read(event: Event) -> Piece:
    return _openai_read(event, lambda choice: True)


def _chat_read(event: Event) -> Piece:
    """The first event may hold nothing but the role: the first token is what follows."""
    return _openai_read(event, lambda choice: any(
        value for name, value in choice["delta"].items() if name != "role"
    ))  # fmt: skip


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("chat", "openai-chat", "/v1/chat/completions", _chat_body, _chat_read),
        Protocol("completions", "openai", "/v1/completions", _completions_body, _completions_read),
        Protocol("tgi", "tgi", "/generate_stream", _tgi_body, _tgi_read),
    )
}
