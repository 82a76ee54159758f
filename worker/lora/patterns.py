"""Which of the numbers in ``rank_pattern`` or ``alpha_pattern`` is a module's, as PEFT has it.

Runs in the worker. A key is a name or a regular expression, and a module is meant if the end of its
name is that: all of it, or what follows a dot. Adapters come from strangers, and Python's engine
takes for ever for some expressions: so what is more than a name is matched by llguidance's, whose
time grows with the name alone. It knows neither looking around nor references back.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from llguidance import LLMatcher, LLTokenizer, regex_to_lark

_NAME = re.compile(r"[\w.]+")
_BEFORE = r"(.*\.)?"
_SHOWN_CHARACTERS = 100
_TOO_MUCH = (
    "is more than can be matched in limited time: write it without looking around (^ may begin a"
    " pattern without alternatives) and without references back"
)


class PatternError(ValueError):
    """A pattern cannot be read; says which and why."""


class Patterns:
    """One entry's, in their order."""

    def __init__(self, numbers: Mapping[str, Any]) -> None:
        """Raises PatternError."""
        self._numbers = [(_matcher(pattern), number) for pattern, number in numbers.items()]

    def find(self, module: str, otherwise: Any) -> Any:
        """The number of the first pattern that means a module. Raises PatternError."""
        for means, number in self._numbers:
            if means(module):
                return number
        return otherwise


def _matcher(pattern: str) -> Callable[[str], bool]:
    if _NAME.fullmatch(pattern):
        name = re.compile(f"{_BEFORE}{pattern}")  # a dot in it is any character
        return lambda module: name.fullmatch(module) is not None
    _check(pattern)
    is_whole = pattern.startswith("^") and "|" not in pattern
    text = regex_to_lark(pattern[1:] if is_whole else f"{_BEFORE}({pattern})")
    matcher = LLMatcher(LLTokenizer("byte"), f"start: /{text}/\n", log_level=0)

    def means(module: str) -> bool:
        matcher.reset()
        data = list(module.encode())
        found = matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()
        if matcher.is_error():
            raise PatternError(f"{_shown(pattern)} {_TOO_MUCH}")
        return found

    if matcher.is_error():
        raise PatternError(f"{_shown(pattern)} {_TOO_MUCH}")
    return means


def _check(pattern: str) -> None:
    """Raise PatternError unless Python reads it, and as others do: not so some sets in sets."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            re.compile(pattern)
        pattern.encode()
    except (re.error, OverflowError, FutureWarning, UnicodeEncodeError) as error:
        raise PatternError(f"{_shown(pattern)} is no pattern ({error})") from None
    except RecursionError:
        raise PatternError(f"{_shown(pattern)} is no pattern (nested too deeply)") from None


def _shown(pattern: str) -> str:
    return (
        repr(pattern) if len(pattern) <= _SHOWN_CHARACTERS else f"{pattern[:_SHOWN_CHARACTERS]!r}…"
    )
