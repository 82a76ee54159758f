"""What one render of a template may cost, and the count of what it has cost; runs in front ends.

Owns the numbers only. The sandbox (``sandbox.py``) reports every loop iteration, call and filter,
and every string and container that a template makes. Nothing here needs a thread or a signal.

Containers carry their weight, about the number of characters they print as, so a template that puts
a list into itself again and again (``[x, x]``) is stopped long before it is printed or compared.
"""

import time
from collections.abc import Callable, ItemsView, KeysView, ValuesView
from dataclasses import dataclass
from itertools import chain
from typing import Any

_STEPS_PER_LOOK = 32
"""Steps between two looks at the clock. PERF: reading a thread's clock costs about 0.3 us."""
_BIG = 100_000
"""Characters whose handling is worth a look at the clock by itself."""


class LimitExceededError(Exception):
    """A render did more than it may; the message is a part of a sentence."""


@dataclass(frozen=True)
class RenderLimits:
    """Bounds of one render."""

    characters: int = 8_000_000
    """Of the output, and of any single string or container on the way."""
    produced: int = 512_000_000
    """Characters of everything made on the way, together; an element of a list counts as 8."""
    steps: int = 2_000_000
    """Loop iterations, calls and filters."""
    cpu_s: float = 2.0
    """Processor time of the rendering thread, so a busy machine refuses nothing."""


class WeighedList(list[Any]):
    """A list that knows its weight. Templates cannot reach names with an underscore."""

    __slots__ = ("_weight",)
    _weight: int


class WeighedDict(dict[Any, Any]):
    """A dict that knows its weight."""

    __slots__ = ("_weight",)
    _weight: int


class WeighedTuple(tuple[Any, ...]):
    """A tuple that knows its weight."""

    _weight: int


class Meter:
    """Counts one render; every method raises ``LimitExceededError``."""

    def __init__(
        self, limits: RenderLimits, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        self.limits = limits
        self._cpu_clock = cpu_clock
        self._end_s = cpu_clock() + limits.cpu_s
        self._steps = 0
        self._produced = 0

    def step(self) -> None:
        """One loop iteration, call or filter."""
        self._steps += 1
        if self._steps % _STEPS_PER_LOOK == 0:
            self._look()

    def room_for(self, size: int) -> None:
        """Check that a string or container of this size may be made at all."""
        if size > self.limits.characters:
            raise LimitExceededError(
                f"it makes a text of more than {self.limits.characters} characters"
            )
        if size > _BIG:
            self._look()

    def made(self, value: Any) -> Any:
        """Count a value that the template has made; containers come back weighed."""
        if isinstance(value, str):  # PERF: first, being nearly all of them
            size = len(value)
            if size > _BIG:
                self.room_for(size)
        elif isinstance(value, _WEIGHED):
            return value
        elif isinstance(value, list | tuple | dict):
            value = _weighed(value, self.weigh(value))
            size = 8 * len(value)
        else:
            return value
        self._count(size)
        return value

    def joined(self, left: Any, right: Any) -> Any:
        """``left + right`` of lists or tuples; nothing is weighed again: lists grow in loops."""
        weight = self.weigh(left) + self.weigh(right)
        self.room_for(weight)
        self._count(8 * (len(left) + len(right)))
        return _weighed(left + right, weight)

    def _count(self, size: int) -> None:
        self._produced += size
        if self._produced > self.limits.produced:
            raise LimitExceededError(
                f"it makes more than {self.limits.produced} characters on the way"
            )

    def weigh(self, value: Any) -> int:
        """About the characters that a value prints as, at most one more than the limit's excess."""
        if isinstance(value, str | bytes):
            return len(value) + 2
        if isinstance(value, int):
            return value.bit_length() // 3 + 1
        known = getattr(value, "_weight", None) if isinstance(value, _WEIGHED) else None
        if known is not None:
            return int(known)
        if isinstance(value, dict):
            return self._total(chain(value.keys(), value.values()))
        if isinstance(value, _CONTAINERS):
            return self._total(value)
        return 8

    def copy(self, value: Any) -> Any:
        """Plain JSON types all the way down, weighed: what a template may see of its input.

        Objects of any other type could have methods that the sandbox knows nothing about.
        """
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, dict | list | tuple):
            self.step()  # a request may hold a million of them
        if isinstance(value, dict):
            copied = {self.copy(key): self.copy(item) for key, item in value.items()}
            return _weighed(copied, self._total(chain(copied.keys(), copied.values())))
        if isinstance(value, list | tuple):
            items = [self.copy(item) for item in value]
            return _weighed(items, self._total(items))
        raise TypeError(f"a template cannot be given {type(value).__name__}")

    def _total(self, children: Any) -> int:
        total = 2
        for child in children:
            total += self.weigh(child) + 2
            if total > self.limits.characters:
                self.room_for(total)
        return total

    def _look(self) -> None:
        if self._steps > self.limits.steps:
            raise LimitExceededError(f"it takes more than {self.limits.steps} steps")
        if self._cpu_clock() > self._end_s:
            raise LimitExceededError(f"it takes more than {self.limits.cpu_s:g} s")


_WEIGHED = (WeighedList, WeighedDict, WeighedTuple)
_CONTAINERS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)


def _weighed(value: Any, weight: int) -> Any:
    if isinstance(value, _WEIGHED):
        return value
    weighed: WeighedDict | WeighedList | WeighedTuple
    if isinstance(value, dict):
        weighed = WeighedDict(value)
    elif isinstance(value, list):
        weighed = WeighedList(value)
    elif type(value) is tuple:
        weighed = WeighedTuple(value)
    else:  # groupby's named tuples, whose fields templates read
        return value
    weighed._weight = weight
    return weighed
