"""Reads single entries of config.json: typed, or refused with a sentence that names the entry.

Runs in the worker, once. Knows JSON and nothing of models.
"""

import sys
from collections.abc import Mapping
from typing import Any

from common.errors import StartupError

NO_DEFAULT = object()
"""An entry that must be there."""
_MOST_LAYERS = 1024
"""No model has so many: building them would only take long."""


def count(config: Mapping[str, Any], key: str, default: Any = NO_DEFAULT) -> int:
    """A positive integer; ``default`` stands in for a missing entry or null."""
    value = entry(config, key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise StartupError(f"config.json: {key} must be a positive integer, not {value!r}")
    if key == "num_hidden_layers" and value > _MOST_LAYERS:
        raise StartupError(f"config.json: {value} layers are more than {_MOST_LAYERS}")
    return value


def optional_count(config: Mapping[str, Any], key: str) -> int | None:
    """The same; None for a missing entry or null."""
    return None if config.get(key) is None else count(config, key)


def number(config: Mapping[str, Any], key: str, default: Any = NO_DEFAULT) -> float:
    """An integer or a fraction, finite."""
    value = entry(config, key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not _is_finite(value):
        raise StartupError(f"config.json: {key} must be a number, not {value!r}")
    return float(value)


def _is_finite(value: float) -> bool:
    """Neither what JSON cannot say and Python reads, nor an integer beyond all floats."""
    return abs(value) <= sys.float_info.max


def optional_number(config: Mapping[str, Any], key: str) -> float | None:
    """The same; None for a missing entry or null."""
    return None if config.get(key) is None else number(config, key)


def positive(config: Mapping[str, Any], key: str) -> float | None:
    """A number greater than 0; None for a missing entry or null."""
    value = optional_number(config, key)
    if value is not None and not value > 0:
        raise StartupError(f"config.json: {key} must be greater than 0, not {value}")
    return value


def numbers(config: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """A list of numbers; empty for a missing entry or null."""
    value = entry(config, key, [])
    if not isinstance(value, list):
        raise StartupError(f"config.json: {key} must be a list of numbers")
    return tuple(number({key: item}, key) for item in value)


def switch(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """True or false."""
    value = entry(config, key, default)
    if not isinstance(value, bool):
        raise StartupError(f"config.json: {key} must be true or false, not {value!r}")
    return value


def token_ids(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """One id, several, or none."""
    value = config.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
        raise StartupError(f"config.json: {key} must be a token id or a list of them")
    return tuple(ids)


def entry(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """Anything; ``default`` stands in for a missing entry or null."""
    value = config.get(key)
    if value is None:
        value = default
    if value is NO_DEFAULT:
        raise StartupError(f"config.json: {key} is missing")
    return value
