"""Sizes of results that templates could make far larger than their operands; runs in front ends.

Each gate works out how large a result would be and refuses it before it is made. Knows Python's
string methods and Jinja's filters, not the sandbox that asks.
"""

import re
from collections.abc import Callable
from string import Formatter
from typing import Any

from frontend.text.meter import LimitExceededError, Meter

_MAX_INTEGER_BITS = 8192
_MAX_WIDTH = 10_000
_MAX_PATTERN = 10_000
_SEQUENCES = (str, bytes, list, tuple)
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(?:\*|\d{5}|\d*\.(?:\*|\d{5}))")
_WIDE_SPEC = re.compile(r"\d{5}|\{")
"""Of a field of ``str.format``: too large a width, or one that stands elsewhere."""


def gate_binary(meter: Meter, operator: str, left: Any, right: Any) -> None:
    """``*``, ``**`` and ``%``."""
    if operator == "*":
        _gate_product(meter, left, right)
    elif operator == "**":
        if isinstance(left, int) and isinstance(right, int):
            _gate_integer(left.bit_length() * max(right, 0))
    elif isinstance(left, str):
        gate_percent(meter, left, right)


def _gate_product(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, _SEQUENCES) and isinstance(right, int):
        meter.room_for(_size(meter, left) * max(right, 0))
    elif isinstance(right, _SEQUENCES) and isinstance(left, int):
        meter.room_for(_size(meter, right) * max(left, 0))
    elif isinstance(left, int) and isinstance(right, int):
        _gate_integer(left.bit_length() + right.bit_length())


def _size(meter: Meter, value: Any) -> int:
    return len(value) if isinstance(value, str | bytes) else meter.weigh(value)


def _gate_integer(bits: int) -> None:
    if bits > _MAX_INTEGER_BITS:
        raise LimitExceededError("it makes a number that is too large")


def gate_percent(meter: Meter, pattern: str, given: Any) -> None:
    """``pattern % given``."""
    if len(pattern) > _MAX_PATTERN or _WIDE_PERCENT.search(pattern.replace("%%", "")):
        raise LimitExceededError("it formats with too long a pattern or too large a width")
    meter.room_for(len(pattern) + pattern.count("%") * meter.weigh(given))


def gate_format(meter: Meter, pattern: str, given: Any) -> None:
    """``pattern.format(...)``, ``given`` being all arguments."""
    if len(pattern) > _MAX_PATTERN or any(
        _WIDE_SPEC.search(spec or "") for _, _, spec, _ in Formatter().parse(pattern)
    ):
        raise LimitExceededError("it formats with too long a pattern or too large a width")
    meter.room_for(len(pattern) + pattern.count("{") * meter.weigh(given))


def _replaced(meter: Meter, text: str, old: str, new: str, count: Any = None) -> None:
    times = text.count(old) if old else len(text) + 1
    if isinstance(count, int) and count >= 0:
        times = min(times, count)
    meter.room_for(len(text) + times * max(0, len(new) - len(old)))


# --- string methods: (meter, string, arguments) -> arguments ----------------------------------


def _replace_method(meter: Meter, text: str, *args: Any) -> tuple[Any, ...]:
    if len(args) >= 2 and all(isinstance(argument, str) for argument in args[:2]):
        _replaced(meter, text, *args[:3])
    return args


def _join_method(meter: Meter, text: str, *args: Any) -> tuple[Any, ...]:
    if not args:
        return args
    items = list(args[0])
    meter.room_for(meter.weigh(items) + len(text) * len(items))
    return (items, *args[1:])


def _width_method(meter: Meter, text: str, *args: Any) -> tuple[Any, ...]:
    _check_widths(args)
    return args


METHOD_GATES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "replace": _replace_method,
    "join": _join_method,
    "center": _width_method,
    "ljust": _width_method,
    "rjust": _width_method,
    "zfill": _width_method,
}

# --- filters: (meter, value, arguments) -> value ----------------------------------------------


def _check_widths(arguments: Any) -> None:
    if any(isinstance(argument, int) and abs(argument) > _MAX_WIDTH for argument in arguments):
        raise LimitExceededError(f"it asks for a width of more than {_MAX_WIDTH}")


def _width_filter(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
    _check_widths((*args, *kwargs.values()))
    return _printed(meter, value)


def _indent_filter(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
    _check_widths((*args, *kwargs.values()))
    width = args[0] if args else kwargs.get("width", 4)
    columns = len(width) if isinstance(width, str) else int(width)
    text = str(_printed(meter, value))
    meter.room_for(len(text) + (len(text.splitlines()) + 1) * columns)
    return value


def _replace_filter(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
    text = str(_printed(meter, value))
    given = dict(zip(("old", "new", "count"), args, strict=False)) | kwargs
    old, new = (str(_printed(meter, given.get(name, ""))) for name in ("old", "new"))
    _replaced(meter, text, old, new, given.get("count"))
    return value


def _join_filter(meter: Meter, value: Any, d: Any = "", attribute: Any = None) -> Any:
    items = value if isinstance(value, str) else list(value)
    meter.room_for(meter.weigh(items) + _size(meter, d) * len(items))
    return items


def _format_filter(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
    text = str(_printed(meter, value))
    gate_percent(meter, text, (args, kwargs))
    return value


def _sum_filter(meter: Meter, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    items = list(value)
    if not isinstance(start, int | float):  # adding up lists copies the growing one every time
        meter.room_for(len(items) * len(items))
    return items


def _printed(meter: Meter, value: Any) -> Any:
    """The value, if it may be turned into text."""
    if not isinstance(value, str):
        meter.room_for(meter.weigh(value))
    return value


def _printing_filter(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
    return _printed(meter, value)


_PRINTING_FILTERS = (
    *("capitalize", "e", "escape", "forceescape", "lower", "safe", "string", "title", "trim"),
    *("truncate", "upper", "urlencode", "wordcount"),
)
"""Filters that turn their value into text first."""

FILTER_GATES: dict[str, Callable[..., Any]] = {
    "batch": _width_filter,
    "center": _width_filter,
    "format": _format_filter,
    "indent": _indent_filter,
    "join": _join_filter,
    "replace": _replace_filter,
    "round": _width_filter,
    "slice": _width_filter,
    "sum": _sum_filter,
    **dict.fromkeys(_PRINTING_FILTERS, _printing_filter),
}
