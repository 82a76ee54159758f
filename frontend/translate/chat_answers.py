"""Answers and chunks of ``/v1/chat/completions`` in OpenAI's words."""

from dataclasses import dataclass, field
from typing import Any

from common.errors import RequestError
from frontend.answers import Template, event, request_error_document
from frontend.identity import Identity
from frontend.runs import Run, Token
from frontend.schema.openai import ChatBody
from frontend.services import Services
from frontend.surfaces import Surface
from frontend.text.deltas import CallArguments, CallStart, Content, Delta
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai
from frontend.translate.chat import Conversation
from frontend.translate.reading import Call, Reading


@dataclass(frozen=True)
class ChatRequest:
    """A validated chat request and the name of its answer."""

    conversation: Conversation
    identity: Identity
    stamp: openai.Stamp
    logprobs: bool
    usage: bool
    """Whether the stream ends with a usage chunk."""


def request_of(
    body: ChatBody, conversation: Conversation, services: Services, identity: Identity
) -> ChatRequest:
    """Name the answer of a conversation: any model name is repeated, but for TGI's own."""
    named = body.model not in (None, openai.BASE_MODEL)
    model = (body.model if named else services.settings.model_id) or ""
    return ChatRequest(
        conversation=conversation,
        identity=identity,
        stamp=openai.stamp("chatcmpl", model, services.version, identity),
        logprobs=bool(body.logprobs),
        usage=openai.wants_usage(body),
    )


def answer(request: ChatRequest, runs: list[Run], tokenizer: Tokenizer) -> dict[str, Any]:
    """The body of a chat completion."""
    conversation = request.conversation
    return {
        **request.stamp.document("chat.completion"),
        "choices": [_choice(request, run, tokenizer) for run in runs],
        "usage": openai.usage(conversation.input_length, runs, runs[0].cached_tokens),
    }


def _choice(request: ChatRequest, run: Run, tokenizer: Tokenizer) -> dict[str, Any]:
    said = request.conversation.said(run)
    blank = bool(said.calls) and not said.content.strip()
    message: dict[str, Any] = {"role": "assistant", "content": None if blank else said.content}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            call_document(call, request.identity.name("call", run.index, number))
            for number, call in enumerate(said.calls)
        ]
    return {
        "index": run.index,
        "message": message,
        "logprobs": openai.logprobs(run.tokens, tokenizer) if request.logprobs else None,
        **openai.ending(run, calls=said.calls_tools),
    }


def call_document(call: Call, name: str) -> dict[str, Any]:
    """A tool call, whose id is ``name``."""
    return {
        "id": name,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


@dataclass
class _Choice:
    """One choice of a stream."""

    reading: Reading
    role: dict[str, str] = field(default_factory=lambda: {"role": "assistant"})
    """Goes with the choice's first chunk, and is empty afterwards."""
    plain: Template | None = None
    """Of chunks that say some content and nothing else; once there was one."""


class ChatDialect:
    """The chunks of a chat stream: what each token says, then usage if asked for, ``[DONE]``."""

    def __init__(self, request: ChatRequest, tokenizer: Tokenizer) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._head = request.stamp.document("chat.completion.chunk")
        self._choices: dict[int, _Choice] = {}
        self._runs: list[Run] = []

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """The chunks of new tokens; the last one of the run carries the reason."""
        choice = self._choices.get(run.index)
        if choice is None:
            choice = _Choice(Reading(self._request.conversation.reader()))
            self._choices[run.index] = choice
            self._runs.append(run)
        return b"".join([self._chunks(run, choice, token) for token in tokens])

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event."""
        return event(request_error_document(error, Surface.OPENAI))

    def end(self) -> bytes:
        """The usage chunk, if it was asked for, also after an error, and the terminator."""
        if not self._request.usage:
            return openai.DONE
        cached = self._runs[0].cached_tokens if self._runs else 0
        counts = openai.usage(self._request.conversation.input_length, self._runs, cached)
        return event({**self._head, "choices": [], "usage": counts}) + openai.DONE

    def _chunks(self, run: Run, choice: _Choice, token: Token) -> bytes:
        """A chunk for each delta; none for a token that says nothing yet."""
        index = run.index
        said = choice.reading.read(token)
        if (
            len(said) == 1
            and isinstance(said[0], Content)
            and not choice.role
            and not token.finish
            and not self._request.logprobs
        ):
            return self._plain(index, choice).event(said[0].text)
        deltas = [self._delta(index, delta) for delta in said]
        logprobs = None
        if self._request.logprobs and token.counted:
            logprobs = openai.logprobs([token], self._tokenizer)
        if not deltas:
            if logprobs is None and not token.finish:
                return b""
            deltas = [{}]
        ending = openai.GOES_ON
        if token.finish:
            ending = openai.ending(run, calls=choice.reading.calls_tools)
        last = len(deltas) - 1
        chunks = []
        for number, delta in enumerate(deltas):
            chunk = self._chunk(
                index,
                {**choice.role, **delta},
                logprobs if number == 0 else None,
                ending if number == last else openai.GOES_ON,
            )
            choice.role = {}
            chunks.append(event(chunk))
        return b"".join(chunks)

    def _plain(self, index: int, choice: _Choice) -> Template:
        """Chunks of content alone."""
        if choice.plain is None:
            choice.plain = Template(
                lambda text: self._chunk(index, {"content": text}, None, openai.GOES_ON)
            )
        return choice.plain

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None,
        ending: dict[str, Any],
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, **ending}
        return {**self._head, "choices": [choice], "usage": None}

    def _delta(self, index: int, delta: Delta) -> dict[str, Any]:
        """OpenAI's words for what a token says."""
        if isinstance(delta, Content):
            return {"content": delta.text}
        if isinstance(delta, CallStart):
            call: dict[str, Any] = {
                "id": self._request.identity.name("call", index, delta.index),
                "type": "function",
                "function": {"name": delta.name, "arguments": ""},
            }
        elif isinstance(delta, CallArguments):
            call = {"function": {"arguments": delta.text}}
        else:
            return {"reasoning_content": delta.text}
        return {"tool_calls": [{"index": delta.index, **call}]}
