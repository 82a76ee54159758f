"""Every limit that ends in 422, and what follows from the values that pass.

Pure functions over numbers and settings; raise RequestError (VALIDATION). The order of the native
checks is part of the contract: the first failure wins.
"""

import struct
from typing import NamedTuple

from common.errors import ErrorKind, RequestError
from common.settings import Settings
from frontend.schema.generate import GenerateParameters

CHECKED_NEW_TOKENS = 1024
"""Of a larger ``max_new_tokens`` only so many are checked against the context; then it is cut."""

MAX_SALT_CHARACTERS = 256

MAX_STOP_CHARACTERS = 1024
"""Of one stop string: each sequence of a request prepares its own search for them."""


def invalid(message: str) -> RequestError:
    """A validation error, to be raised."""
    return RequestError(ErrorKind.VALIDATION, message)


def check_native(parameters: GenerateParameters, settings: Settings, *, streaming: bool) -> None:
    """The checks of the native routes that need no tokens, in the contract's order."""
    p = parameters
    if streaming:
        if p.best_of is not None and p.best_of != 1:
            raise invalid("`best_of` must be 1 when streaming tokens")
        if p.decoder_input_details:
            raise invalid("`decoder_input_details` is not supported when streaming tokens")
    best_of = p.best_of or 1
    _check_best_of(best_of, p, settings)
    check_positive("temperature", p.temperature)
    check_positive("repetition_penalty", p.repetition_penalty)
    check_penalty("frequency_penalty", p.frequency_penalty)
    check_open_unit("top_p", p.top_p)
    check_open_unit("typical_p", p.typical_p)
    check_min_p(p.min_p)
    check_top_k(p.top_k)
    check_max_new_tokens("max_new_tokens", p.max_new_tokens)
    check_stops(p.stop, settings)
    if best_of > 1 and p.seed is not None:
        raise invalid("`seed` must not be set when `best_of` > 1")
    check_top_n(p.top_n_tokens, settings)
    check_cache_salt(p.cache_salt)


def _check_best_of(best_of: int, p: GenerateParameters, settings: Settings) -> None:
    if best_of == 1:
        return
    if settings.max_best_of == 1:
        raise invalid("`best_of` other than 1 is not allowed on this server")
    if best_of > settings.max_best_of:
        raise invalid(f"`best_of` must be > 0 and <= {settings.max_best_of}. Given: {best_of}")
    knobs = (p.temperature, p.top_k, p.top_p, p.typical_p, p.min_p)
    if not p.do_sample and all(knob is None for knob in knobs):
        raise invalid("`best_of` > 1 needs sampling: set `do_sample`")


def check_positive(name: str, value: float | None) -> None:
    """> 0, also in single precision."""
    if value is not None and single(name, value) <= 0.0:
        raise invalid(f"`{name}` must be strictly positive")


def check_penalty(name: str, value: float | None) -> None:
    """-2.0 … 2.0."""
    if value is not None and not -2.0 <= value <= 2.0:
        raise invalid(f"`{name}` must be >= -2.0 and <= 2.0")


def check_open_unit(name: str, value: float | None) -> None:
    """Between 0 and 1, both excluded, also in single precision."""
    if value is not None and not 0.0 < single(name, value) < 1.0:
        raise invalid(f"`{name}` must be > 0.0 and < 1.0")


def check_share(name: str, value: float | None) -> None:
    """Above 0, also in single precision, and at most 1, which is all."""
    if value is not None and not (single(name, value) > 0.0 and value <= 1.0):
        raise invalid(f"`{name}` must be > 0.0 and <= 1.0")


def check_min_p(value: float | None) -> None:
    """0.0 … 1.0, where 0 is none."""
    if value is not None and not 0.0 <= single("min_p", value) <= 1.0:
        raise invalid("`min_p` must be >= 0.0 and <= 1.0")


def check_top_k(value: int | None) -> None:
    """>= 1."""
    if value is not None and value < 1:
        raise invalid("`top_k` must be strictly positive")


def check_max_new_tokens(name: str, value: int | None) -> None:
    """>= 1."""
    if value == 0:
        raise invalid(f"`{name}` must be strictly positive")


def check_stops(stops: list[str], settings: Settings) -> None:
    """At most ``max_stop_sequences`` of them, none of which is very long."""
    if len(stops) > settings.max_stop_sequences:
        raise invalid(
            f"`stop` supports up to {settings.max_stop_sequences} stop sequences. "
            f"Given: {len(stops)}"
        )
    check_stop_lengths("stop", stops)


def check_stop_lengths(name: str, stops: list[str]) -> None:
    """At most ``MAX_STOP_CHARACTERS`` each."""
    for i, stop in enumerate(stops):
        if len(stop) > MAX_STOP_CHARACTERS:
            raise invalid(f"`{name}[{i}]` must have at most {MAX_STOP_CHARACTERS} characters")


def check_top_n(value: int | None, settings: Settings, name: str = "top_n_tokens") -> None:
    """0 … ``max_top_n_tokens``."""
    if value is not None and value > settings.max_top_n_tokens:
        raise invalid(f"`{name}` must be >= 0 and <= {settings.max_top_n_tokens}. Given: {value}")


def check_cache_salt(value: str | None) -> None:
    """1 … ``MAX_SALT_CHARACTERS`` characters."""
    if value is not None and not 1 <= len(value) <= MAX_SALT_CHARACTERS:
        raise invalid(f"`cache_salt` must have 1 to {MAX_SALT_CHARACTERS} characters")


def check_text(text: str, name: str = "inputs") -> None:
    """Not empty."""
    if not text:
        raise invalid(f"`{name}` cannot be empty")


def check_truncate(value: int | None, settings: Settings) -> None:
    """1 … ``max_input_tokens``."""
    if value is not None and not 1 <= value <= settings.max_input_tokens:
        raise invalid(
            f"`truncate` must be strictly positive and <= {settings.max_input_tokens}. "
            f"Given: {value}"
        )


class BudgetNames(NamedTuple):
    """What a surface calls what a budget is about."""

    prompt: str = "inputs"
    max_new_tokens: str = "max_new_tokens"


def budget(
    input_tokens: int,
    max_new_tokens: int | None,
    settings: Settings,
    names: BudgetNames = BudgetNames(),  # noqa: B008 - a constant
) -> int:
    """How many tokens may be generated: exactly what was asked for, or what the context leaves.

    A ``max_new_tokens`` beyond the context is cut, if its first 1,024 fit; None fills the context.
    """
    total = settings.max_total_tokens
    if input_tokens > settings.max_input_tokens:
        raise invalid(
            f"`{names.prompt}` must have at most {settings.max_input_tokens} tokens "
            f"(--max-input-tokens). Given: {input_tokens}"
        )
    if input_tokens < 1:
        raise invalid(f"`{names.prompt}` must have at least one token")
    room = max(total - input_tokens, 0)
    if room < 1:
        raise invalid(
            f"`{names.prompt}` has {input_tokens} tokens, which leaves no room for an answer: both "
            f"together must have at most {total} tokens (--max-total-tokens)"
        )
    if max_new_tokens is None:
        return room
    if min(CHECKED_NEW_TOKENS, max_new_tokens) > room:
        raise invalid(
            f"`{names.prompt}` tokens + `{names.max_new_tokens}` must be <= {total} "
            f"(--max-total-tokens). Given: {input_tokens} `{names.prompt}` tokens and "
            f"{max_new_tokens} `{names.max_new_tokens}`"
        )
    return min(max_new_tokens, room)


def check_sequences(count: int, settings: Settings) -> None:
    """No more than may be alive at once: these would be refused whenever they came."""
    most = settings.max_concurrent_requests
    if count > most:
        raise invalid(
            f"the request asks for {count} texts at once, and this server takes at most {most} "
            "(--max-concurrent-requests)"
        )


def single(name: str, value: float) -> float:
    """``value`` as a single-precision number, which is what samplers compute with."""
    try:
        number: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        raise invalid(f"`{name}` is out of range") from None
    return number
