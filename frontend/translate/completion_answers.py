"""Answers and chunks of ``/v1/completions`` in OpenAI's words."""

from typing import Any

from common.errors import RequestError
from frontend.answers import Template, event, request_error_document
from frontend.runs import Run, Token
from frontend.surfaces import Surface
from frontend.text.detokenizer import Detokenizer
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai
from frontend.translate.completions import CompletionRequest


def answer(request: CompletionRequest, runs: list[Run], tokenizer: Tokenizer) -> dict[str, Any]:
    """The body of a completion; choices in the order of the prompts."""
    choices = []
    for number, run in enumerate(request.answered(runs)):
        echo = request.prompt_of(run).echo
        logprobs = _Logprobs(tokenizer) if request.logprobs else None
        if logprobs is not None:
            if request.echo:
                logprobs.add_prompt(run, echo)
            logprobs.add(run.tokens)
        choices.append(_choice(number, echo + run.text, logprobs, openai.ending(run)))
    return {
        **request.stamp.document("text_completion"),
        "choices": choices,
        "usage": openai.usage(request.input_length, runs, request.cached_tokens(runs)),
    }


class _Logprobs:
    """The ``logprobs`` object of completions: four lists of one entry per token."""

    def __init__(self, tokenizer: Tokenizer, offset: int = 0) -> None:
        """``offset`` is where the first token stands in the text of the choice."""
        self._tokenizer = tokenizer
        self.offset = offset
        self.document: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }

    def add_prompt(self, run: Run, echo: str) -> None:
        """The prompt's tokens: the first has no log-probability, and none has candidates.

        Special tokens are no part of the text, unless the client has written them there.
        """
        reader = Detokenizer(self._tokenizer, ())
        for token, logprob in zip(run.plan.prompt_ids, [None, *run.prefill_logprobs], strict=False):
            special = self._tokenizer.is_special(token)
            text = self._tokenizer.token_text(token) if special else reader.push(token)
            hidden = special and not echo.startswith(text, self.offset)
            self._add(text, logprob, None, hidden=hidden)
        self.offset = len(echo)

    def add(self, tokens: list[Token]) -> None:
        """Generated tokens."""
        for token in tokens:
            tops = {_key(self._tokenizer.piece(other)): value for other, value in token.tops}
            hidden = token.special and not token.shown.endswith(token.text)
            self._add(token.text, token.logprob, tops or None, hidden=hidden)

    def _add(
        self, text: str, logprob: float | None, tops: dict[str, float] | None, *, hidden: bool
    ) -> None:
        lists = self.document
        lists["tokens"].append(text)
        lists["token_logprobs"].append(logprob)
        lists["top_logprobs"].append(tops)
        lists["text_offset"].append(self.offset)
        self.offset += 0 if hidden else len(text)


def _key(piece: bytes) -> str:
    """A candidate's text; as OpenAI writes it where it is no whole character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def _choice(
    index: int, text: str, logprobs: _Logprobs | None, ending: dict[str, Any]
) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": None if logprobs is None else logprobs.document,
        **ending,
    }


class CompletionDialect:
    """The chunks of a completion stream: one per token and choice, then ``[DONE]``.

    Usage comes in one last chunk if asked for.
    """

    def __init__(self, request: CompletionRequest, tokenizer: Tokenizer) -> None:
        self._request = request
        self._tokenizer = tokenizer
        self._head = request.stamp.document("text_completion")
        self._runs: dict[int, Run] = {}
        self._offsets: dict[int, int] = {}
        self._plain: dict[int, Template] = {}
        """Of chunks with nothing but text, by the index of their choice."""

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """One chunk per token that says something; the last one of the run carries the reason."""
        echo = ""
        if run.index not in self._runs:
            self._runs[run.index] = run
            echo = self._request.prompt_of(run).echo
            self._offsets[run.index] = len(echo)
        chunks = []
        for token in tokens:
            chunks.append(self._chunk(run, token, echo))
            echo = ""
        return b"".join(chunks)

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event; the other sequences go on if it belongs to one of them."""
        return event(request_error_document(error, Surface.OPENAI))

    def end(self) -> bytes:
        """The usage chunk, if it was asked for, also after an error, and the terminator."""
        if not self._request.usage:
            return openai.DONE
        runs = list(self._runs.values())
        cached = self._request.cached_tokens(runs)
        counts = openai.usage(self._request.input_length, runs, cached)
        return event({**self._head, "choices": [], "usage": counts}) + openai.DONE

    def _chunk(self, run: Run, token: Token, echo: str) -> bytes:
        index, text = run.index, echo + token.shown
        logprobs = None
        if self._request.logprobs and token.counted:
            logprobs = _Logprobs(self._tokenizer, self._offsets[index])
            logprobs.add([token])
            self._offsets[index] = logprobs.offset
        if not token.finish and logprobs is None:
            return self._template(index).event(text) if text else b""
        ending = openai.ending(run) if token.finish else openai.GOES_ON
        return event(self._document(_choice(index, text, logprobs, ending)))

    def _template(self, index: int) -> Template:
        template = self._plain.get(index)
        if template is None:
            template = Template(
                lambda text: self._document(_choice(index, text, None, openai.GOES_ON))
            )
            self._plain[index] = template
        return template

    def _document(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "choices": [choice], "usage": None}
