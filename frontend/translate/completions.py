"""``/v1/completions``: one choice per prompt, each an independent sequence."""

from dataclasses import dataclass
from typing import Any

from common.errors import ErrorKind, RequestError
from frontend import limits
from frontend.answers import event, request_error_document
from frontend.limits import invalid
from frontend.runs import Order, Plan, Run, Token
from frontend.schema.openai import CompletionBody
from frontend.services import Services
from frontend.translate import openai
from frontend.translate.prompts import encode


@dataclass(frozen=True)
class CompletionRequest:
    """A validated completion request."""

    order: Order
    stamp: openai.Stamp
    input_lengths: list[int]
    """Prompt tokens of each prompt."""
    characters: int
    """Of all prompts."""
    usage: bool
    """Whether the stream ends with a usage chunk."""


def prepare(
    body: CompletionBody, services: Services, *, streaming: bool, timeout_s: float = 0.0
) -> CompletionRequest:
    """Check everything and plan. Raises RequestError."""
    settings = services.settings
    if body.suffix is not None:
        raise RequestError(ErrorKind.SUFFIX, "`suffix` is not supported")
    prompts = _prompts(body.prompt)
    if len(prompts) > settings.max_client_batch_size:
        raise RequestError(
            ErrorKind.BATCH_SIZE,
            f"Number of prompts exceeds the maximum of {settings.max_client_batch_size}. "
            f"Given: {len(prompts)}",
        )
    if body.logprobs is not None:
        raise invalid("`logprobs` is not supported yet")
    openai.check(body, settings)
    plans = [_plan(prompt, body, services) for prompt in prompts]
    order = openai.order(body, plans, settings, streaming=streaming, timeout_s=timeout_s)
    return CompletionRequest(
        order=order,
        stamp=openai.stamp("cmpl", settings.model_id, services.version, services.wall_clock()),
        input_lengths=[len(plan.prompt_ids) for plan in plans],
        characters=sum(len(prompt) for prompt in prompts if isinstance(prompt, str)),
        usage=openai.wants_usage(body),
    )


def answer(request: CompletionRequest, runs: list[Run]) -> dict[str, Any]:
    """The body of a completion; choices in the order of the prompts."""
    return {
        **request.stamp.document("text_completion"),
        "choices": [_choice(run.index, run.text, openai.finish_reason(run.finish)) for run in runs],
        "usage": openai.usage(sum(request.input_lengths), openai.completion_tokens(runs)),
    }


class CompletionDialect:
    """The chunks of a completion stream: one per token and prompt, then ``[DONE]``.

    Usage comes in one last chunk if asked for, else with the last chunk of each prompt as in TGI.
    """

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._head = request.stamp.document("text_completion")
        self._completion_tokens = 0
        self._failed = False

    def tokens(self, run: Run, tokens: list[Token]) -> bytes:
        """One chunk per token; the last one of the run carries the reason."""
        self._completion_tokens += sum(token.counted for token in tokens)
        return b"".join([self._chunk(run, token) for token in tokens])

    def failure(self, error: RequestError, run: Run | None = None) -> bytes:
        """An error event; the other prompts go on if it belongs to one of them."""
        self._failed = True
        return event(request_error_document(error, openai=True))

    def end(self) -> bytes:
        """The usage chunk, if it was asked for and nothing failed, and the terminator."""
        if not self._request.usage or self._failed:
            return openai.DONE
        counts = openai.usage(sum(self._request.input_lengths), self._completion_tokens)
        return event({**self._head, "choices": [], "usage": counts}) + openai.DONE

    def _chunk(self, run: Run, token: Token) -> bytes:
        reason = openai.finish_reason(token.finish)
        chunk = {**self._head, "choices": [_choice(run.index, token.shown, reason)]}
        if self._request.usage:
            chunk["usage"] = None
        elif token.finish:
            length = self._request.input_lengths[run.index]
            chunk["usage"] = openai.usage(length, run.generated_tokens)
        return event(chunk)


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


def _prompts(given: Any) -> list[str | list[int]]:
    """The prompts as a list. Raises RequestError (VALIDATION) with the JSON path."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise invalid("Expected `str | array` - at `$.prompt`")
    if not given:
        raise invalid("`prompt` cannot be empty")
    if all(_is_id(item) for item in given):
        return [given]
    for i, item in enumerate(given):
        if isinstance(item, str):
            continue
        if not isinstance(item, list) or not item or not all(_is_id(token) for token in item):
            raise invalid(f"Expected `str` or an array of token ids - at `$.prompt[{i}]`")
    return given


def _is_id(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _plan(prompt: str | list[int], body: CompletionBody, services: Services) -> Plan:
    tokenizer = services.tokenizer
    if isinstance(prompt, str):
        limits.check_text(prompt, "prompt")
        ids = encode(prompt, tokenizer, services.offload, add_special_tokens=True)
    else:
        ids = prompt
        if not all(0 <= token < tokenizer.vocabulary_size for token in ids):
            raise invalid("`prompt` holds a number that is not a token id of this model")
    return openai.plan(body, ids, body.max_tokens, services)
