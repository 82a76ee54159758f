"""Answers and chunks of the OpenAI routes exactly as TGI writes them (``--messages-api-dialect``).

Beside OpenAI's: ids are empty, ``role`` stands in every chunk, finish reasons are TGI's, a tool
call has an integer for an id and its stream tells no reason, completions tell special tokens.
"""

import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec

from common.errors import RequestError
from frontend.answers import event
from frontend.identity import Identity
from frontend.runs import Finish, Run, Token
from frontend.schema.openai import ChatBody
from frontend.text.deltas import CallArguments, CallStart, Content, Delta
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai
from frontend.translate.chat_answers import ChatRequest
from frontend.translate.completions import CompletionRequest
from frontend.translate.reading import Reading, Said

STREAM_ERROR_STATUS = 422
"""TGI's number in every stream error, whatever happened."""

_COUNTED = re.compile(r"[0-9]{1,18}")
"""Ids of calls that are numbers; of longer ones nobody has counted that far."""


def nameless(stamp: openai.Stamp) -> openai.Stamp:
    """TGI's answers have no id."""
    return replace(stamp, id="")


def chat_answer(request: ChatRequest, runs: list[Run], tokenizer: Tokenizer) -> dict[str, Any]:
    """The body of a chat completion."""
    choices = [
        {
            "index": run.index,
            "message": _message(request.conversation.said(run)),
            "logprobs": _logprobs(run.tokens, tokenizer) if request.logprobs else None,
            "finish_reason": _finish_reason(run.finish),
        }
        for run in runs
    ]
    return {
        **nameless(request.stamp).document("chat.completion"),
        "choices": choices,
        "usage": _usage(request.conversation.input_length, runs),
    }


def completion_answer(request: CompletionRequest, runs: list[Run]) -> dict[str, Any]:
    """The body of a completion."""
    choices = [
        {
            "index": number,
            "text": request.prompt_of(run).echo + run.text,
            "logprobs": None,
            "finish_reason": _finish_reason(run.finish),
        }
        for number, run in enumerate(request.answered(runs))
    ]
    return {
        **nameless(request.stamp).document("text_completion"),
        "choices": choices,
        "usage": _usage(request.input_length, runs),
    }


def call_id(body: ChatBody, identity: Identity) -> str:
    """The id of a streamed call: one more than the largest of the conversation, if all count."""
    ids = [call.get("id") for message in body.messages for call in message.tool_calls or []]
    if not ids:
        return "0"
    if all(isinstance(given, str) and _COUNTED.fullmatch(given) for given in ids):
        return str(1 + max(int(str(given)) for given in ids))
    return str(UUID(identity.name("", separator="")))


class TgiChatDialect:
    """The chunks of a chat stream: one per token."""

    def __init__(self, request: ChatRequest, tokenizer: Tokenizer, call_id: str) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._call_id = call_id
        self._head = nameless(request.stamp).document("chat.completion.chunk")
        self._readings: dict[int, Reading] = {}
        self._untold: dict[int, list[Token]] = {}
        """By choice: tokens whose log-probabilities wait for a chunk."""
        self._runs: list[Run] = []

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """The chunks of new tokens."""
        if run.index not in self._readings:
            self._readings[run.index] = Reading(self._request.conversation.reader())
            self._untold[run.index] = []
            self._runs.append(run)
        reading = self._readings[run.index]
        return b"".join([self._chunks(run.index, reading, token) for token in tokens])

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event."""
        return _stream_error(error)

    def end(self) -> bytes:
        """The usage chunk, if it was asked for, and the terminator."""
        if not self._request.usage:
            return openai.DONE
        counts = _usage(self._request.conversation.input_length, self._runs)
        return event({**self._head, "choices": [], "usage": counts}) + openai.DONE

    def _chunks(self, index: int, reading: Reading, token: Token) -> bytes:
        deltas = [self._delta(delta) for delta in reading.read(token)]
        if not deltas and not reading.calls and self._request.conversation.choice is None:
            deltas = [_text("")]
        reason = None if reading.calls else _finish_reason(token.finish)
        if not deltas and reason is not None:
            deltas = [_text("")]
        logprobs, untold = None, self._untold[index]
        if self._request.logprobs and token.counted:
            untold.append(token)
        if deltas and untold:
            logprobs = _logprobs(untold, self._tokenizer)
            untold.clear()
        last = len(deltas) - 1
        chunks = []
        for number, delta in enumerate(deltas):
            choice = {
                "index": index,
                "delta": delta,
                "logprobs": logprobs if number == 0 else None,
                "finish_reason": reason if number == last else None,
            }
            chunks.append(event({**self._head, "choices": [choice], "usage": None}))
        return b"".join(chunks)

    def _delta(self, delta: Delta) -> dict[str, Any]:
        if isinstance(delta, CallStart):
            function: dict[str, Any] = {"name": delta.name, "arguments": ""}
        elif isinstance(delta, CallArguments):
            function = {"name": None, "arguments": delta.text}
        elif isinstance(delta, Content):
            return _text(delta.text)
        else:
            return {**_text(""), "reasoning_content": delta.text}
        call = {
            "index": delta.index,
            "id": self._call_id,
            "type": "function",
            "function": function,
        }
        return {"role": "assistant", "tool_calls": [call]}


class TgiCompletionDialect:
    """The chunks of a completion stream: one per token, usage with the last of each prompt."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._head = nameless(request.stamp).document("text_completion")

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """One chunk per token; the last one of the run carries reason and usage."""
        return b"".join([self._chunk(run, token) for token in tokens])

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event; the other prompts go on if it belongs to one of them."""
        return _stream_error(error)

    def end(self) -> bytes:
        """The terminator."""
        return openai.DONE

    def _chunk(self, run: Run, token: Token) -> bytes:
        choice = {
            "index": run.index,
            "text": token.text,
            "logprobs": None,
            "finish_reason": token.finish,
        }
        document = {**self._head, "choices": [choice]}
        if token.finish:
            document["usage"] = _usage(len(self._request.prompt_of(run).ids), [run])
        return event(document)


def _text(text: str) -> dict[str, Any]:
    """A delta; the ``text-generation`` client demands the key for calls."""
    return {"role": "assistant", "content": text, "tool_calls": None}


def _compact(arguments: str) -> str:
    """The arguments without blanks, unless the length limit has cut them, or they nest too deep."""
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments)).decode()
    except (msgspec.DecodeError, RecursionError):
        return arguments


def _message(said: Said) -> dict[str, Any]:
    if not said.calls:
        message: dict[str, Any] = {"role": "assistant", "content": said.content}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        return message
    calls = [
        {
            "id": str(number),
            "type": "function",
            "function": {
                "description": None,
                "name": call.name,
                "arguments": _compact(call.arguments),
            },
        }
        for number, call in enumerate(said.calls)
    ]
    return {"role": "assistant", "tool_calls": calls}


def _finish_reason(finish: Finish) -> str | None:
    if finish == "eos_token":
        return "stop"
    return finish or None


def _usage(prompt_tokens: int, runs: list[Run]) -> dict[str, int]:
    completion_tokens = sum(run.generated_tokens for run in runs)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _logprobs(tokens: list[Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """As OpenAI's, without bytes."""
    return {
        "content": [
            {
                "token": token.text,
                "logprob": token.logprob,
                "top_logprobs": [
                    {"token": tokenizer.token_text(other), "logprob": logprob}
                    for other, logprob in token.tops
                ],
            }
            for token in tokens
        ]
    }


def stream_refusal(error: RequestError) -> bytes:
    """The whole stream of a request that is refused."""
    return _stream_error(error) + openai.DONE


def _stream_error(error: RequestError) -> bytes:
    inner = {"message": error.message, "http_status_code": STREAM_ERROR_STATUS}
    return event({"error": inner, "error_type": error.kind.error_type})
