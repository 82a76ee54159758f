"""``/v1/completions`` made an order: prompts, choices of each, what stands before their text.

Sequences are numbered prompt by prompt, the choices of one prompt in a row.
"""

from dataclasses import dataclass
from typing import Any

from common.errors import ErrorKind, RequestError
from frontend import limits
from frontend.identity import Identity
from frontend.limits import invalid
from frontend.runs import Order, Run
from frontend.schema.openai import CompletionBody
from frontend.services import Services
from frontend.text.tokenizer import Tokenizer
from frontend.translate import openai, orders
from frontend.translate.orders import Dialect, Names, Wanted
from frontend.translate.prompts import encode


@dataclass(frozen=True)
class Prompt:
    """One prompt and the text that stands before its choices: itself, if it is echoed."""

    ids: list[int]
    text: str
    """Empty for token ids, unless they are echoed."""
    echo: str


@dataclass(frozen=True)
class CompletionRequest:
    """A validated completion request."""

    order: Order
    stamp: openai.Stamp
    prompts: list[Prompt]
    choices: int
    """Answered for each prompt."""
    generated: int
    """Sequences generated for each prompt; no fewer than ``choices``."""
    echo: bool
    logprobs: bool
    usage: bool
    """Whether the stream ends with a usage chunk."""

    @property
    def input_length(self) -> int:
        """Prompt tokens of all prompts."""
        return sum(len(prompt.ids) for prompt in self.prompts)

    @property
    def characters(self) -> int:
        """Of all prompts that are texts."""
        return sum(len(prompt.text) for prompt in self.prompts)

    def prompt_of(self, run: Run) -> Prompt:
        """The prompt that a run goes on from."""
        return self.prompts[run.index // self.generated]

    def answered(self, runs: list[Run]) -> list[Run]:
        """The runs to answer, prompt by prompt; the likeliest first if more were generated."""
        if self.generated == self.choices:
            return runs
        found: list[Run] = []
        for first in range(0, len(runs), self.generated):
            group = sorted(runs[first : first + self.generated], key=lambda run: -run.mean_logprob)
            found += group[: self.choices]
        return found

    def cached_tokens(self, runs: list[Run]) -> int:
        """Prompt tokens read from cache, each prompt counted once."""
        first = [run for run in runs if run.index % self.generated == 0]
        return sum(run.cached_tokens for run in first)


def prepare(
    body: CompletionBody,
    services: Services,
    *,
    streaming: bool,
    timeout_s: float = 0.0,
    dialect: Dialect = "openai",
    identity: Identity,
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
    orders.check(body, settings)
    generated = _generated(body, services, streaming=streaming)
    source = orders.demanded(body)
    wanted = Wanted(
        names=orders.as_given(Names(prompt="prompt"), body),
        max_tokens=body.max_tokens,
        choices=generated,
        top_n_tokens=body.logprobs or 0,
        grammar=lambda: source,
        prefill_logprobs=bool(body.echo) and body.logprobs is not None,
    )
    read = [_read(prompt, body, services) for prompt in prompts]
    plans = [
        plan
        for prompt in read
        for plan in orders.plans(body, prompt.ids, wanted, services, dialect)
    ]
    order = orders.order(
        body,
        plans,
        services,
        dialect,
        streaming=streaming,
        timeout_s=timeout_s,
        keep_tokens=body.logprobs is not None and not streaming,
    )
    return CompletionRequest(
        order=order,
        stamp=openai.stamp("cmpl", settings.model_id, services.version, identity),
        prompts=read,
        choices=body.n or 1,
        generated=generated,
        echo=bool(body.echo),
        logprobs=body.logprobs is not None,
        usage=openai.wants_usage(body),
    )


def _generated(body: CompletionBody, services: Services, *, streaming: bool) -> int:
    """Sequences for each prompt. Raises RequestError, also for what cannot be reported."""
    settings = services.settings
    limits.check_top_n(body.logprobs, settings, "logprobs")
    choices, generated = body.n or 1, body.best_of or body.n or 1
    orders.check_choices("best_of", generated, settings)
    if generated < choices:
        raise invalid("`best_of` must be >= `n`")
    if streaming and generated > choices:
        raise invalid("`best_of` must be equal to `n` when streaming")
    if body.echo and body.logprobs is not None:
        if streaming:
            raise invalid("`echo` with `logprobs` cannot be streamed")
        if not settings.enable_prefill_logprobs:
            raise invalid("`echo` with `logprobs` needs a server with --enable-prefill-logprobs")
    return generated


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


def _read(prompt: str | list[int], body: CompletionBody, services: Services) -> Prompt:
    """The token ids of a prompt. Raises RequestError (VALIDATION)."""
    tokenizer, echo = services.tokenizer, bool(body.echo)
    if isinstance(prompt, str):
        limits.check_text(prompt, "prompt")
        added = body.add_special_tokens is not False
        ids = encode(prompt, tokenizer, services.offload, add_special_tokens=added)
        return Prompt(ids, prompt, prompt if echo else "")
    if min(prompt) < 0 or max(prompt) >= tokenizer.vocabulary_size:
        raise invalid("`prompt` holds a number that is not a token id of this model")
    return Prompt(prompt, "", _decoded(prompt, tokenizer) if echo else "")


def _decoded(ids: list[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)
