"""Answers and events of ``/v1/responses`` in OpenAI's words; runs in front ends.

A response is an object around the items of the output, which tells how it was asked for. A stream
begins and ends with that object; its events are numbered. The items are ``responses_output.py``'s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from common.errors import RequestError
from frontend.answers import event, request_error_document
from frontend.identity import Identity
from frontend.runs import Run, Token
from frontend.schema.responses import ResponsesBody, TextConfig
from frontend.services import Services
from frontend.surfaces import Surface
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai
from frontend.translate.chat import Conversation
from frontend.translate.responses import wants_logprobs
from frontend.translate.responses_output import Output

_TOO_MANY = 429
_PLAIN = {"type": "text"}


@dataclass(frozen=True)
class ResponsesRequest:
    """A validated request and what its answer begins with."""

    conversation: Conversation
    identity: Identity
    head: dict[str, Any]
    """The response before anything is said."""
    tokenizer: Tokenizer | None
    """If log-probabilities are wanted."""
    now: Callable[[], float]
    """Seconds since the epoch."""

    def output(self) -> Output:
        """The output of a run that is still to be read."""
        return Output(self.conversation.reader(), self.identity, self.tokenizer)

    def document(self, **fields: Any) -> dict[str, Any]:
        """The response with what is known besides."""
        return {**self.head, **fields}


def request_of(
    body: ResponsesBody, conversation: Conversation, services: Services, identity: Identity
) -> ResponsesRequest:
    """Name the answer; the model's name is repeated, as in chat."""
    named = body.model not in (None, openai.BASE_MODEL)
    asked = _asked(body)
    head = {
        "id": identity.name("resp"),
        "object": "response",
        "created_at": int(identity.born),
        "completed_at": None,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": (body.model if named else services.settings.model_id) or "",
        "output": [],
        "usage": None,
        **asked,
    }
    return ResponsesRequest(
        conversation=conversation,
        identity=identity,
        head=head,
        tokenizer=services.tokenizer if wants_logprobs(body) else None,
        now=services.wall_clock,
    )


def _asked(body: ResponsesBody) -> dict[str, Any]:
    """How the response was asked for, with the values that count where nothing was said."""
    reasoning = body.reasoning
    return {
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": None if reasoning is None else reasoning.effort,
            "summary": None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": _written(_text(body.text)),
        "tool_choice": _given(body.tool_choice or "auto"),
        "tools": _written(body.tools or []),
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def _text(config: TextConfig | None) -> dict[str, Any]:
    given = None if config is None else config.format
    verbosity = None if config is None else config.verbosity
    return {
        "format": _PLAIN if given is None else _given(given),
        "verbosity": verbosity or "medium",
    }


def _written(value: Any) -> orjson.Fragment:
    """What may hold a client's schema, and so integers beyond 64 bits, which orjson refuses."""
    return orjson.Fragment(msgspec.json.encode(value))


def _given(value: Any) -> Any:
    """What a client said, but for the fields that say nothing."""
    if isinstance(value, list):
        return [_given(item) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    fields = msgspec.structs.asdict(value)
    return {name: _given(field) for name, field in fields.items() if field is not None}


def answer(request: ResponsesRequest, run: Run) -> dict[str, Any]:
    """The body of a whole answer; the run has kept its tokens."""
    output = request.output()
    for token in run.tokens:
        output.read(token)
    return _ended(request, output, run)[1]


def _ended(request: ResponsesRequest, output: Output, run: Run) -> tuple[str, dict[str, Any]]:
    """The status of a run that has ended, and the whole response."""
    cut = run.finish == "length"
    status = "incomplete" if cut else "completed"
    return status, request.document(
        status=status,
        completed_at=None if cut else int(request.now()),
        incomplete_details={"reason": "max_output_tokens"} if cut else None,
        output=output.items(),
        usage=_usage(request, output, run),
    )


def _usage(request: ResponsesRequest, output: Output, run: Run) -> dict[str, Any]:
    read, written = request.conversation.input_length, run.generated_tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": run.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": output.reasoning_tokens},
        "total_tokens": read + written,
    }


class ResponsesDialect:
    """The stream of ``/v1/responses``. It has no ``[DONE]``: its last event ends it."""

    def __init__(self, request: ResponsesRequest) -> None:
        self._request = request
        self._output = request.output()
        self._events = 0
        self._run: Run | None = None
        self._failed = False

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """The events of new tokens; before the first of them, those of the response."""
        self._run = run
        events = [self._begin()]
        for token in tokens:
            events += [self._event(kind, **fields) for kind, fields in self._output.read(token)]
        return b"".join(events)

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """The error twice, as OpenAI tells it: there are clients that know only one of the two."""
        self._failed = True
        told = request_error_document(error, Surface.OPENAI)["error"]
        limited = error.kind.http_status == _TOO_MANY
        code = "rate_limit_exceeded" if limited else "server_error"
        failed = self._request.document(
            status="failed",
            error={"code": code, "message": error.message},
            output=self._output.items(),
        )
        return b"".join(
            [
                self._begin(),
                self._event(
                    "error",
                    code=told["code"],
                    message=told["message"],
                    param=told["param"],
                    error=told,
                ),
                self._event("response.failed", response=failed),
            ]
        )

    def end(self) -> bytes:
        """The whole response, unless it has failed."""
        if self._failed or self._run is None:
            return b""
        status, response = _ended(self._request, self._output, self._run)
        return self._event(f"response.{status}", response=response)

    def _begin(self) -> bytes:
        """The first events of the stream, once."""
        if self._events:
            return b""
        created = self._event("response.created", response=self._request.head)
        return created + self._event("response.in_progress", response=self._request.head)

    def _event(self, kind: str, **fields: Any) -> bytes:
        """A named event with the next number."""
        document = {"type": kind, "sequence_number": self._events, **fields}
        self._events += 1
        return b"event: " + kind.encode() + b"\n" + event(document)
