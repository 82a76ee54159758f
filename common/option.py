"""What an option is: its names, how its text becomes a value, and what it accepts.

The table itself is ``common/options.py``; the launcher resolves it against flags and environment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from common.keys import MAX_KEYS

AUTO = "auto"
"""The value of an option that the launcher derives."""
MOST_PROCESSES = 1024
"""Of a kind, and threads of one."""
LARGEST_BATCH = 4096
"""The largest of ``batch_sizes``."""
MOST_CPUS = 8192
"""Linux numbers no processor as high."""
MOST_DRAFTS = 32
"""Of a sequence and step."""
FAULTS_PREFIX = "test-only:"
"""What a value of ``debug_faults`` begins with."""


@dataclass(frozen=True)
class Kind:
    """How a text becomes a value. ``parse`` raises ValueError with "must be …"."""

    word: str
    """What the help shows after the flag; empty for switches, which take no value as flags."""
    parse: Callable[[str], Any]


@dataclass(frozen=True)
class Option:
    """One setting: every name that it answers to, and what it means."""

    name: str
    """Field of ``Settings`` if there is one of that name; the flag is ``--name-with-dashes``."""
    kind: Kind
    default: Any
    meaning: str
    check: Callable[[Any], str] | None = None
    """Gives "must be …" for a value that is refused, else an empty text."""
    short: str = ""
    """A one-letter flag."""
    legacy: str = ""
    """An older name, accepted as flag and in the environment."""
    environment: tuple[str, ...] = ()
    """Names that other platforms use; they come after our own."""
    bare: bool = True
    """Whether the plain upper-case name counts too, as in TGI; False where it is too common."""
    lenient: bool = False
    """A bare name that does not parse belongs to somebody else: it is skipped with a log line."""
    auto: str = ""
    """What ``auto`` stands for; empty where ``auto`` is not accepted."""
    no_effect: str = ""
    """Accepted, and why it changes nothing, unless the value is one of ``harmless``."""
    warns: bool = False
    """Whether who sets what has no effect may have counted on it."""
    not_yet: str = ""
    """Refused, and why, unless the value is one of ``harmless``."""
    harmless: tuple[Any, ...] = ()
    flag: bool = True
    """False for names that exist only in the environment."""
    negation: bool = False
    """Whether ``--no-…`` exists."""
    secret: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings on the command line, the usual one first."""
        if not self.flag:
            return ()
        names = [f"--{name.replace('_', '-')}" for name in (self.name, self.legacy) if name]
        return (*names, self.short) if self.short else tuple(names)

    @property
    def environment_names(self) -> tuple[str, ...]:
        """All names in the environment, the strongest first."""
        names = [name.upper() for name in (self.name, self.legacy) if name]
        ours = [f"TGI_{name}" for name in names] if self.flag else []
        return (*ours, *(names if self.bare else ()), *self.environment)

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone."""
        return not self.kind.word

    @property
    def is_list(self) -> bool:
        """Whether the flag may be repeated."""
        return self.kind is LIST


def _text(text: str) -> str:
    return text


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("must be a number")
    return value


def _truth(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise ValueError("must be true or false")


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _sizes(text: str) -> list[int]:
    try:
        return [int(item) for item in text.split(",")]
    except ValueError:
        raise ValueError("must be whole numbers, separated by commas") from None


def _cpus(text: str) -> list[int]:
    """As Linux lists processors: ``0-3,8``, in the order given."""
    found: list[int] = []
    for item in text.split(","):
        first, dash, last = item.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise ValueError("must be processors such as 0-3 or 0,2,4")
        beyond = int(last if dash else first) + 1
        if beyond > MOST_CPUS:
            raise ValueError(f"must be processors below {MOST_CPUS}")
        found += range(int(first), beyond)
    return found


def _log_level(text: str) -> str:
    """TGI's filters (``info,router=debug``) are reduced to their first plain level."""
    levels = {"warn": "WARNING", "trace": "DEBUG"}
    for part in text.lower().split(","):
        if part in ("error", "warn", "warning", "info", "debug", "trace"):
            return levels.get(part, part.upper())
    raise ValueError("must be error, warn, info or debug")


TEXT = Kind("TEXT", _text)
PATH = Kind("PATH", _text)
WHOLE = Kind("N", _whole)
NUMBER = Kind("X", _number)
TRUTH = Kind("true|false", _truth)
SWITCH = Kind("", _truth)
LIST = Kind("TEXT", _items)
SIZES = Kind("N,N,…", _sizes)
CPUS = Kind("N-N,…", _cpus)
LOG_LEVEL = Kind("LEVEL", _log_level)


def choice(*words: str) -> Kind:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return Kind("|".join(words) if len(words) <= 5 else "NAME", parse)


def at_least(minimum: int) -> Callable[[Any], str]:
    """A check for numbers."""
    return lambda value: "" if value >= minimum else f"must be at least {minimum}"


def drafts(value: int) -> str:
    """A check for numbers of drafts of a sequence and step."""
    return "" if 0 <= value <= MOST_DRAFTS else f"must be between 0 and {MOST_DRAFTS}"


def processes(value: int) -> str:
    """A check for numbers of processes or threads: a slip must not fill the machine with them."""
    return "" if 1 <= value <= MOST_PROCESSES else f"must be between 1 and {MOST_PROCESSES}"


def port(value: int) -> str:
    """A check for TCP ports."""
    return "" if 1 <= value <= 65535 else "must be a port between 1 and 65535"


def port_or_none(value: int) -> str:
    """A check for TCP ports that may be switched off with 0."""
    return "" if value == 0 else port(value)


def batch_sizes(value: list[int]) -> str:
    """A check for numbers of sequences that steps are prepared for; 0 alone is none."""
    fine = value == [0] or all(1 <= size <= LARGEST_BATCH for size in value)
    return "" if fine else f"must be batch sizes between 1 and {LARGEST_BATCH}, or 0 for none"


def different(value: list[int]) -> str:
    """A check for lists of what cannot be shared."""
    return "" if value and len(set(value)) == len(value) else "must name processors once each"


def absolute_path(value: str) -> str:
    """A check for the path of a route."""
    plain = value.startswith("/") and value.isascii() and value.isprintable()
    return "" if plain and not set(value) & set("{}?# ") else "must be a path such as /predict"


def collector(value: str) -> str:
    """A check for where traces go: a URL, or host:port as gRPC writes it."""
    given = value if "://" in value else f"http://{value}"
    try:
        url = urlsplit(given)
        is_one = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        is_whole = "://" in value or url.port is not None
    except ValueError:
        is_one = is_whole = False
    is_plain = value.isascii() and value.isprintable() and " " not in value and "@" not in value
    return "" if is_one and is_whole and is_plain else "must be a URL such as http://collector:4317"


def fraction(value: float) -> str:
    """A check for shares of something."""
    return "" if 0 < value <= 1 else "must be above 0 and at most 1"


def part(value: float) -> str:
    """A check for shares that leave something."""
    return "" if 0 < value < 1 else "must be above 0 and below 1"


def strength(value: float) -> str:
    """A check for what is added to logits, which are seldom larger than 100 themselves.

    In float32, which they are in, less than the least that is taken is lost beside 100.
    """
    return "" if 0.00001 <= value <= 100 else "must be at least 0.00001 and at most 100"


def positive(value: float) -> str:
    """A check for factors."""
    return "" if value > 0 else "must be above 0"


def for_tests(value: str) -> str:
    """A check for what breaks a server on purpose: nobody sets it by accident."""
    return "" if value.startswith(FAULTS_PREFIX) else f"must begin with {FAULTS_PREFIX}"


def some_keys(keys: list[str]) -> str:
    """A check for API keys: an empty list would leave the server open."""
    if len(keys) > MAX_KEYS:
        return f"must be at most {MAX_KEYS} keys"
    return "" if keys else "must hold a key"
