"""Requests drawn from the types of their bodies: right in form, odd in everything else."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from msgspec import inspect

from tests.frontend import mutations

CHANCES = (0.04, 0.2)
"""Of a field that may be left out; one for each request."""
MOST_ITEMS = 3


class Drawer:
    """Draws values of types."""

    def __init__(self, random: Random, words: Sequence[str]) -> None:
        """``words`` are texts that mean something to the operation."""
        self._random = random
        self._words = words
        self._chance = random.choice(CHANCES)

    def draw(self, kind: Any) -> Any:
        """A value that JSON can hold, or a ``Raw`` one."""
        return self._draw(inspect.type_info(kind))

    def _draw(self, info: inspect.Type) -> Any:
        choose = self._random.choice
        match info:
            case inspect.StructType():
                return self._struct(info)
            case inspect.UnionType():
                return self._draw(choose(info.types))
            case inspect.LiteralType():
                return choose(info.values)
            case inspect.ListType():
                count = self._random.randint(0, MOST_ITEMS)
                return [self._draw(info.item_type) for _ in range(count)]
            case inspect.DictType():
                return choose([*mutations.OBJECTS, *mutations.DEEP_OBJECTS])
            case inspect.BoolType():
                return choose([True, False])
            case inspect.IntType():
                return choose([n for n in mutations.INTEGERS if self._fits(n, info)])
            case inspect.FloatType():
                return choose([0, 0.5, 1, 0.01, 1.5, 3.4e38, 1.7e308, 1e-46, -2.0])
            case inspect.StrType():
                return choose([choose(self._words), choose(self._words), choose(mutations.TEXTS)])
            case inspect.NoneType():
                return None
            case _:
                return choose([choose(self._words), mutations.hostile(self._random)])

    def _struct(self, info: inspect.StructType) -> dict[str, Any]:
        drawn = {
            part.encode_name: self._draw(part.type)
            for part in info.fields
            if part.required or self._random.random() < self._chance
        }
        return {info.tag_field: info.tag, **drawn} if info.tag_field else drawn

    @staticmethod
    def _fits(number: int, info: inspect.IntType) -> bool:
        least, most = info.ge or 0, info.le if info.le is not None else 2**64
        return least <= number <= most


def words_of(examples: Sequence[Any]) -> list[str]:
    """Every text in requests, the keys of objects too."""
    found: set[str] = set()

    def collect(pairs: list[tuple[str, Any]]) -> None:
        for key, value in pairs:
            found.add(key)
            found.update(
                item
                for item in (value if isinstance(value, list) else [value])
                if isinstance(item, str)
            )

    for example in examples:
        json.loads(json.dumps(example), object_pairs_hook=collect)
    return sorted(found)
