"""Wrong requests made of right ones: JSON documents as trees, changed in places, and written out.

A tree keeps what ``json`` would not write: keys that come twice, and raw bytes for values.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

MARK = "zqxmark"
"""Stands in the texts of requests; nothing that holds it may be logged."""
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@dataclass
class Raw:
    """A value that is written as it stands."""

    text: bytes


@dataclass
class Object:
    """An object's pairs, in order."""

    pairs: list[tuple[Any, Any]]


Node = Any
Place = tuple[Any, int]
"""A list of items or of pairs, and an index in it."""


def _nested(left: bytes, right: bytes, depth: int) -> Raw:
    return Raw(left * depth + b"1" + right * depth)


_DEPTHS = (5, 90, 99, 130, 240, 260, 500, 960, 1000)
"""Below and beyond what is read, compiled, written; JSON is read up to 1,024."""
DEEP_LISTS = [*(_nested(b"[", b"]", depth) for depth in _DEPTHS), Raw(b"[" * 50_000)]
DEEPEST = DEEP_LISTS[8]
DEEP_OBJECTS = [
    *(_nested(b'{"properties":', b"}", depth) for depth in _DEPTHS),
    *(_nested(b'{"a":[{"type":', b"}]}", depth // 3) for depth in _DEPTHS),
]
INTEGERS = [0, 1, -1, 2, 5, 127, 1000, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64]
NUMBERS = [
    *(*INTEGERS, -(2**31), -(2**63), -(2**64), 10**40),
    *(0.0, -0.0, 0.5, 1.0, 1.5, -2.5, 1e-320, 1e-46, 3.4e38, 3.5e38, 1.7e308),
    *map(Raw, (b"1e400", b"NaN", b"-Infinity", b"1" * 5000, b"0." + b"3" * 5000)),
]
TEXTS = [
    *("", " ", "0", "7", "-1", "{}", "[]", '{"a":', "[" * 900, "\0", "\x1b[31m\x7f"),
    *("\u2028\ufeff\u202e", "\r\n\r\ndata: [DONE]\n\n", "</s>", "<s><|call|></s>", "<think>"),
    *("{{ 7*7 }}{% for %}", "a" * 3000, "👩‍👩‍👧‍👦" * 20, "\u0301" * 500, MARK, f"{MARK}\n" * 700),
    *("1" * 6000, "(" * 900, '"\\', "text", "function", "tool", "assistant", "developer"),
]
BROKEN_TEXTS = [Raw(b'"\xff\xfe"'), Raw(b'"\\ud800"'), Raw(b'"a\nb"'), Raw(b"'a'"), Raw(b"")]
LISTS = [
    *([], [[]], [None], [{}], [0] * 3000, [""] * 3000, [MARK] * 50, [[1]] * 600, [[], {}, "", 0]),
    *([{"role": "user", "content": ""}] * 5000, [{"type": "text", "text": MARK}] * 300),
]
CALL = {"name": "get_weather", "arguments": {"city": MARK}}
OBJECTS = [
    *({}, {"": ""}, {"type": MARK}, {"0": 1, "1": -100}, {str(i): 1 for i in range(2000)}),
    *(SCHEMA, {"schema": SCHEMA}, {"type": "object"}, {"schema": {}}, {"$ref": "#"}, CALL),
    *({"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": SCHEMA}}),
    *({"type": kind, "value": "(a|" * 40} for kind in ("regex", "lark", "json", "text")),
    *(
        {"id": "1" * 6000, "function": CALL},
        {"id": DEEPEST, "function": CALL},
        {"function": {"name": DEEPEST}},
    ),
    *({"name": "get_weather"}, {"function": CALL}, {"properties": [], "required": {}}),
    *({"properties": {"a": deep}} for deep in DEEP_OBJECTS),
    *({"type": "object", "allOf": deep} for deep in DEEP_LISTS),
    *({"edits": [{"type": deep}]} for deep in DEEP_LISTS),
]
HOSTILE = [
    *([None, True, False], NUMBERS, TEXTS, BROKEN_TEXTS, LISTS, DEEP_LISTS, DEEP_OBJECTS, OBJECTS),
]
_ODD_KEYS = ["", "\0", MARK, "__proto__", "__class__", "a" * 1000, Raw(b'"\\udfff"'), Raw(b"1")]
_KINDS: list[tuple[type | tuple[type, ...], Sequence[Any]]] = [
    (bool, [True, False]),
    (int, INTEGERS),
    (float, NUMBERS),
    (str, TEXTS),
    (list, [*LISTS, *DEEP_LISTS]),
    (Object, OBJECTS),
]


def tree(value: Any) -> Node:
    """A JSON value as a tree."""
    if isinstance(value, dict):
        return Object([(key, tree(item)) for key, item in value.items()])
    if isinstance(value, list):
        return [tree(item) for item in value]
    return value


def write(node: Node) -> bytes:
    """The tree's JSON text, right or wrong."""
    if isinstance(node, Raw):
        return node.text
    if isinstance(node, Object):
        pairs = [write(key) + b":" + write(value) for key, value in node.pairs]
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(node, list):
        return b"[" + b",".join(map(write, node)) + b"]"
    return json.dumps(node).encode()


def mutated(random: Random, document: Any, names: Sequence[str], changes: int) -> bytes:
    """``document`` changed in some places. ``names`` are keys that may be added."""
    root: Node = [tree(document)]
    for _ in range(changes):
        places = _places(root)
        if not places:
            break
        _change(random, places, names)
    return write(root[0]) if root else b""


def _change(random: Random, places: list[Place], names: Sequence[str]) -> None:
    kind = random.choice(["alike", "alike", "any", "drop", "add", "add", "many", "wrap", "swap"])
    whole, parts = places[:1], places[1:] or places
    container, index = random.choice(whole if kind == "add" and random.random() < 0.5 else parts)
    value = _value(container, index)
    items = container.pairs if isinstance(container, Object) else container
    key = random.choice([*names, *_ODD_KEYS])
    if kind == "alike":
        _set(container, index, tree(_alike(random, value)))
    elif kind == "drop":
        del items[index]
    elif kind == "add" and isinstance(value, Object):
        value.pairs.append((key, tree(hostile(random))))
    elif kind == "many" and isinstance(container, list):
        items[index:index] = [value] * random.choice([1, 3, 9, 140])
    elif kind == "many":  # the same key twice
        items.append((items[index][0], tree(hostile(random))))
    elif kind == "wrap":
        _set(container, index, random.choice([[value], Object([(key, value)])]))
    elif kind == "swap":
        _set(container, index, copy.deepcopy(_value(*random.choice(places))))
    else:
        _set(container, index, tree(hostile(random)))


def hostile(random: Random) -> Any:
    """Anything, but more often what few other values are like."""
    return random.choice(random.choice(HOSTILE))


def _alike(random: Random, value: Node) -> Any:
    """A value of the same type: those get further."""
    found = next((found for kind, found in _KINDS if isinstance(value, kind)), None)
    return hostile(random) if found is None else random.choice(found)


def _places(node: Node) -> list[Place]:
    """Every place in a tree that holds a value."""
    found: list[Place] = []
    waiting = [node]
    while waiting:
        container = waiting.pop()
        if not isinstance(container, Object | list):
            continue
        size = len(container.pairs if isinstance(container, Object) else container)
        for index in range(size if size <= 100 else 1):  # the items of long ones are all alike
            found.append((container, index))
            waiting.append(_value(container, index))
    return found


def _value(container: Any, index: int) -> Node:
    return container.pairs[index][1] if isinstance(container, Object) else container[index]


def _set(container: Any, index: int, value: Node) -> None:
    if isinstance(container, Object):
        container.pairs[index] = (container.pairs[index][0], value)
    else:
        container[index] = value
