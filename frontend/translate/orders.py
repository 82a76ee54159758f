"""From the fields that the OpenAI routes share to an order: limits, sampling, seeds, choices.

OpenAI's meaning holds: stop strings are not part of the text, temperature 0 is greedy whatever
else is set, penalties count the output only. With TGI's dialect its meaning holds instead: stop
strings stay, penalties are its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import msgspec

from common.sampling import SamplingParameters
from common.settings import Settings
from frontend import limits
from frontend.guidance import forms
from frontend.guidance.source import GrammarSource
from frontend.limits import invalid
from frontend.runs import Order, Plan
from frontend.schema.openai import OpenAIBody
from frontend.services import Services
from frontend.translate.prompts import SEED_BITS, random_seed

MAX_LOGIT_BIAS = 1024
MAX_STOP_TOKENS = 128
MAX_PRIORITY = 1000

Dialect = Literal["openai", "tgi"]

_GRAMMARS: dict[str, Callable[[Any, str], GrammarSource | None]] = {
    "grammar": forms.response_format,
    "response_format": forms.response_format,
    "structured_outputs": forms.structured_outputs,
    "guided_json": forms.json_schema,
    "guided_regex": forms.regex,
    "guided_choice": forms.choice,
    "guided_grammar": forms.grammar,
}
"""What is made of a grammar, by the field that it is given in; both are handed over."""


class Names(NamedTuple):
    """What a surface calls the fields that late errors are about."""

    prompt: str = "messages"
    max_tokens: str = "max_tokens"
    grammar: str = "response_format"


CHAT_NAMES = Names()


@dataclass(frozen=True)
class Wanted:
    """What one request wants of every prompt, besides what its body says."""

    max_tokens: int | None
    choices: int = 1
    """Sequences for each prompt."""
    top_n_tokens: int = 0
    grammar: Callable[[], GrammarSource | None] = lambda: None
    """What the answer must match; asked for when everything else is known to be right."""
    names: Names = CHAT_NAMES
    end_ids: Sequence[int] = ()
    """Tokens that end an answer, besides the tokenizer's own."""
    prefill_logprobs: bool = False


def stops(body: OpenAIBody, settings: Settings) -> list[str]:
    """The stop strings; empty ones are left out."""
    given = [body.stop] if isinstance(body.stop, str) else body.stop or []
    limits.check_stops(given, settings)
    return [stop for stop in given if stop]


def check(body: OpenAIBody, settings: Settings) -> None:
    """The limits that both routes share. Raises RequestError (VALIDATION)."""
    if body.temperature is not None and body.temperature < 0:
        raise invalid("`temperature` must be >= 0")
    limits.check_positive("repetition_penalty", body.repetition_penalty)
    limits.check_penalty("frequency_penalty", body.frequency_penalty)
    limits.check_penalty("presence_penalty", body.presence_penalty)
    for name, value in (("top_p", body.top_p), ("typical_p", body.typical_p)):
        limits.check_share(name, value)
    if body.top_k not in (None, 0, -1):
        limits.check_top_k(body.top_k)
    limits.check_min_p(body.min_p)
    if len(body.stop_token_ids or []) > MAX_STOP_TOKENS:
        raise invalid(f"`stop_token_ids` supports up to {MAX_STOP_TOKENS} tokens")
    limits.check_max_new_tokens("max_tokens", body.max_tokens)
    if not -MAX_PRIORITY <= (body.priority or 0) <= MAX_PRIORITY:
        raise invalid(f"`priority` must be >= -{MAX_PRIORITY} and <= {MAX_PRIORITY}")
    limits.check_cache_salt(body.cache_salt)
    check_choices("n", body.n, settings)
    stops(body, settings)


def check_choices(name: str, value: int | None, settings: Settings) -> None:
    """1 … ``max_choices``."""
    if value is not None and not 1 <= value <= settings.max_choices:
        raise invalid(f"`{name}` must be >= 1 and <= {settings.max_choices}. Given: {value}")


def demanded(body: OpenAIBody) -> GrammarSource | None:
    """The grammar that the client gives, under one of its names. Raises RequestError."""
    given = _given(body)
    if len(given) > 1:
        raise invalid(f"`{given[0]}` and `{given[1]}` are two names of the same: give one")
    return next((_GRAMMARS[name](getattr(body, name), name) for name in given), None)


def as_given(names: Names, body: OpenAIBody) -> Names:
    """With the name under which the client gives a grammar, if it does."""
    return next((names._replace(grammar=name) for name in _given(body)), names)


def _given(body: OpenAIBody) -> list[str]:
    return [name for name in _GRAMMARS if getattr(body, name) is not None]


def plans(
    body: OpenAIBody, ids: list[int], wanted: Wanted, services: Services, dialect: Dialect
) -> list[Plan]:
    """What to generate after one prompt: a plan for each choice. Raises RequestError."""
    tokenizer = services.tokenizer
    room = _room(body, len(ids), wanted, services.settings)
    sampling = _sampling(body, tokenizer.vocabulary_size, wanted.top_n_tokens, dialect)
    ends = _ends(body, tokenizer.vocabulary_size)
    own_ends = list(dict.fromkeys([*tokenizer.stop_token_ids, *wanted.end_ids]))
    grammar = ""
    source = wanted.grammar()
    if source is not None:
        for name, given in (("min_tokens", body.min_tokens), ("stop_token_ids", ends)):
            if given:
                raise invalid(f"`{name}` cannot be combined with a grammar or tool call")
        grammar = services.grammars.checked(source, wanted.names.grammar)
    first = Plan(
        prompt_ids=ids,
        max_new_tokens=room,
        sampling=sampling,
        stop_token_ids=ends + ([] if body.ignore_eos else own_ends),
        prefill_logprobs=wanted.prefill_logprobs,
        grammar=grammar,
        adapter=services.adapter(body.model),
        cache_salt=body.cache_salt or "",
    )
    return [
        first if k == 0 else replace(first, sampling=_reseeded(body, sampling, k))
        for k in range(wanted.choices)
    ]


def order(
    body: OpenAIBody,
    plans: list[Plan],
    services: Services,
    dialect: Dialect,
    *,
    streaming: bool,
    timeout_s: float,
    keep_tokens: bool = False,
    markers: frozenset[int] = frozenset(),
) -> Order:
    """The whole request; ``markers`` are special tokens that are shown. Raises RequestError."""
    tokenizer = services.tokenizer
    show_stop = dialect == "tgi" or bool(body.include_stop_str_in_output)
    ends = frozenset() if show_stop else frozenset(body.stop_token_ids or ())
    if body.skip_special_tokens is False:
        own_ends = frozenset() if show_stop else frozenset(tokenizer.stop_token_ids)
        markers |= tokenizer.special_ids - own_ends - ends
    return Order(
        plans=plans,
        stops=stops(body, services.settings),
        show_stop=show_stop,
        incremental=streaming,
        keep_tokens=keep_tokens,
        timeout_s=timeout_s,
        shown_special_ids=markers,
        hidden_ids=ends,
        named_ends=frozenset(body.stop_token_ids or ()),
        priority=body.priority or 0,
    )


def _reseeded(body: OpenAIBody, sampling: SamplingParameters, k: int) -> SamplingParameters:
    """The parameters of a further choice: the same request gives the same choices again."""
    if not sampling.do_sample:
        return sampling
    seed = random_seed() if body.seed is None else (sampling.seed + k) % 2**SEED_BITS
    return msgspec.structs.replace(sampling, seed=seed)


def _sampling(
    body: OpenAIBody, vocabulary: int, top_n_tokens: int, dialect: Dialect
) -> SamplingParameters:
    """Resolved parameters: sampling is on unless the temperature is 0."""
    temperature = 1.0 if body.temperature is None else body.temperature
    draws = limits.single("temperature", temperature) > 0.0
    repetition, of_all, of_output, presence = _penalties(body, dialect)
    return SamplingParameters(
        do_sample=draws,
        seed=(random_seed() if body.seed is None else body.seed % 2**SEED_BITS) if draws else 0,
        temperature=temperature if draws else 1.0,
        top_k=max(body.top_k or 0, 0) if draws else 0,
        top_p=_share("top_p", body.top_p) if draws else 1.0,
        typical_p=_share("typical_p", body.typical_p) if draws else 1.0,
        repetition_penalty=repetition,
        frequency_penalty=of_all,
        output_frequency_penalty=of_output,
        output_presence_penalty=presence,
        logit_bias=_logit_bias(body, vocabulary),
        min_new_tokens=body.min_tokens or 0,
        top_n_tokens=top_n_tokens,
        min_p=(body.min_p or 0.0) if draws else 0.0,
    )


def _share(name: str, value: float | None) -> float:
    """Of all; what is 1 to samplers, which compute in single precision, is 1."""
    return 1.0 if value is None else limits.single(name, value)


def _penalties(body: OpenAIBody, dialect: Dialect) -> tuple[float, float, float, float]:
    """Repetition penalty, TGI's frequency penalty, OpenAI's frequency and presence penalties.

    TGI makes a repetition penalty of ``presence_penalty``: 2 more than it says.
    """
    repetition = 1.0 if body.repetition_penalty is None else body.repetition_penalty
    frequency, presence = body.frequency_penalty or 0.0, body.presence_penalty or 0.0
    if dialect == "openai":
        return repetition, 0.0, frequency, presence
    if body.presence_penalty is not None:
        repetition = presence + 2.0
        limits.check_positive("repetition_penalty", repetition)
    return repetition, frequency, 0.0, 0.0


def _room(body: OpenAIBody, input_tokens: int, wanted: Wanted, settings: Settings) -> int:
    """How many tokens may be generated."""
    names = limits.BudgetNames(wanted.names.prompt, wanted.names.max_tokens)
    allowed = limits.budget(input_tokens, wanted.max_tokens, settings, names)
    if (body.min_tokens or 0) > allowed:
        raise invalid(f"`min_tokens` must be <= the {allowed} tokens that may be generated")
    return allowed


def _ends(body: OpenAIBody, vocabulary: int) -> list[int]:
    """The client's own stop tokens."""
    given = body.stop_token_ids or []
    if any(token >= vocabulary for token in given):
        raise invalid("`stop_token_ids` holds a number that is not a token id of this model")
    return given


def _logit_bias(body: OpenAIBody, vocabulary: int) -> dict[int, float]:
    given = body.logit_bias or {}
    if isinstance(given, list) and not any(given):
        return {}
    if isinstance(given, list):
        raise invalid("`logit_bias` must be an object of token ids and numbers")
    if len(given) > MAX_LOGIT_BIAS:
        raise invalid(f"`logit_bias` supports up to {MAX_LOGIT_BIAS} tokens. Given: {len(given)}")
    bias: dict[int, float] = {}
    for key, value in given.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else vocabulary
        if token >= vocabulary:
            raise invalid("`logit_bias` holds a key that is not a token id of this model")
        if not math.isfinite(value) or not -100.0 <= value <= 100.0:
            raise invalid("`logit_bias` values must be >= -100 and <= 100")
        bias[token] = value
    return bias
