"""What the two OpenAI routes share: parameters, names, and the pieces of their answers.

OpenAI's meaning holds here: stop strings are not part of the text, temperature 0 is greedy
whatever else is set, penalties count the output only, and a finished text ends with ``stop`` or
``length``.
"""

import math
import secrets
from dataclasses import dataclass
from typing import Any

from common.sampling import SamplingParameters
from common.settings import Settings
from frontend import limits
from frontend.limits import invalid
from frontend.runs import Finish, Order, Plan, Run, Token
from frontend.schema.openai import OpenAIBody
from frontend.services import Services
from frontend.text.tokenizer import Tokenizer
from frontend.translate.prompts import random_seed

MAX_LOGIT_BIAS = 1024
DONE = b"data: [DONE]\n\n"
BASE_MODEL = "tgi"
"""A model name that means the model which is served."""

_FINISH = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}


@dataclass(frozen=True)
class Stamp:
    """What identifies an answer; the same in all chunks of a stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    def document(self, kind: str) -> dict[str, Any]:
        """The common beginning of an answer or chunk."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


def stamp(prefix: str, model: str, version: str, now: float) -> Stamp:
    """A new identity; ``prefix`` is OpenAI's for the kind of answer."""
    return Stamp(f"{prefix}-{secrets.token_hex(16)}", int(now), model, f"{version}-native")


def finish_reason(finish: Finish) -> str | None:
    """OpenAI's name for an end; None while there is none."""
    return _FINISH.get(finish)


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The ``usage`` object."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


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
        if value is not None and value != 1.0:
            limits.check_open_unit(name, value)
    if body.top_k not in (None, 0, -1):
        limits.check_top_k(body.top_k)
    limits.check_max_new_tokens("max_tokens", body.max_tokens)
    stops(body, settings)


def _sampling(body: OpenAIBody, vocabulary: int, top_n_tokens: int) -> SamplingParameters:
    """Resolved parameters: sampling is on unless the temperature is 0."""
    temperature = 1.0 if body.temperature is None else body.temperature
    draws = limits.single("temperature", temperature) > 0.0
    return SamplingParameters(
        do_sample=draws,
        seed=(random_seed() if body.seed is None else body.seed) if draws else 0,
        temperature=temperature if draws else 1.0,
        top_k=max(body.top_k or 0, 0) if draws else 0,
        top_p=1.0 if body.top_p is None or not draws else body.top_p,
        typical_p=1.0 if body.typical_p is None or not draws else body.typical_p,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        output_frequency_penalty=body.frequency_penalty or 0.0,
        output_presence_penalty=body.presence_penalty or 0.0,
        logit_bias=_logit_bias(body, vocabulary),
        min_new_tokens=body.min_tokens or 0,
        top_n_tokens=top_n_tokens,
    )


def plan(
    body: OpenAIBody,
    ids: list[int],
    max_tokens: int | None,
    services: Services,
    *,
    top_n_tokens: int = 0,
) -> Plan:
    """What to generate after one prompt. Raises RequestError (VALIDATION)."""
    tokenizer = services.tokenizer
    return Plan(
        prompt_ids=ids,
        max_new_tokens=_room(body, len(ids), max_tokens, services.settings),
        sampling=_sampling(body, tokenizer.vocabulary_size, top_n_tokens),
        stop_token_ids=[] if body.ignore_eos else tokenizer.stop_token_ids,
    )


def order(
    body: OpenAIBody,
    plans: list[Plan],
    settings: Settings,
    *,
    streaming: bool,
    timeout_s: float,
    keep_tokens: bool = False,
) -> Order:
    """The whole request, with OpenAI's meaning of stop strings. Raises RequestError."""
    return Order(
        plans=plans,
        stops=stops(body, settings),
        show_stop=False,
        incremental=streaming,
        keep_tokens=keep_tokens,
        timeout_s=timeout_s,
    )


def _room(body: OpenAIBody, input_tokens: int, max_tokens: int | None, settings: Settings) -> int:
    """How many tokens may be generated."""
    allowed = limits.budget(input_tokens, max_tokens, settings, name="max_tokens")
    if (body.min_tokens or 0) > allowed:
        raise invalid(f"`min_tokens` must be <= the {allowed} tokens that may be generated")
    return allowed


def wants_usage(body: OpenAIBody) -> bool:
    """Whether a stream ends with a usage chunk."""
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def logprobs(tokens: list[Token], tokenizer: Tokenizer) -> dict[str, Any]:
    """The ``logprobs`` object of chat."""
    return {
        "content": [
            {
                **_logprob(token.text, token.logprob),
                "top_logprobs": [
                    _logprob(tokenizer.token_text(candidate), logprob)
                    for candidate, logprob in token.tops
                ],
            }
            for token in tokens
        ]
    }


def completion_tokens(runs: list[Run]) -> int:
    """Generated tokens of all runs, end tokens included."""
    return sum(run.generated_tokens for run in runs)


def _logprob(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def _logit_bias(body: OpenAIBody, vocabulary: int) -> dict[int, float]:
    given = body.logit_bias or {}
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
