"""The forms in which clients write grammars, each turned into a ``GrammarSource``; in front ends.

Pure: says what a client meant and refuses what has no meaning. Whether the grammar itself is right
is found out later (``compiler.py``). Unlike TGI, schemas need no ``properties`` at their top: no
client depends on that refusal. TGI's own forms count on every route, OpenAI's on OpenAI's alone.
"""

import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import msgspec

from common.errors import RequestError
from common.guidance import MAX_GRAMMAR_BYTES
from frontend.guidance.source import GrammarSource
from frontend.limits import invalid
from frontend.nesting import depth_exceeds

MAX_DEPTH = 100
"""JSON containers inside each other in a schema. llguidance reads 127, ours around it included."""
TYPES = ("json", "json_object", "json_schema", "regex", "lark")
RESPONSE_TYPES = ("text", *TYPES)
ANY_OBJECT = GrammarSource("json_schema", '{"type":"object"}')
_REGEX_KEYS = ("value", "pattern", "regex")


class _Field(NamedTuple):
    """The field of the request that is read; every refusal names it."""

    name: str

    def wrong(self, what: str) -> RequestError:
        return invalid(f"`{self.name}` {what}")

    def string(self, kind: Literal["regex", "lark", "gbnf"], value: object) -> GrammarSource:
        """A regular expression or a grammar."""
        if not isinstance(value, str):
            raise self.wrong(f"of type `{kind}` must hold a string")
        self.check_bytes(value.encode())
        return GrammarSource(kind, value)

    def parsed(self, value: object) -> object:
        """A schema that may have been written as a string."""
        if not isinstance(value, str):
            return value
        self.check_bytes(value.encode())
        try:
            return msgspec.json.decode(value)
        except RecursionError:
            raise self.wrong(f"must not nest deeper than {MAX_DEPTH} levels") from None
        except msgspec.DecodeError as error:
            raise self.wrong(f"holds a string that is not JSON: {error}") from None

    def schema(self, value: object) -> GrammarSource:
        """A JSON schema."""
        if not isinstance(value, dict):
            raise self.wrong("must hold a JSON schema, which is an object")
        too_deep = self.wrong(f"must not nest deeper than {MAX_DEPTH} levels")
        try:
            text = msgspec.json.encode(value)
        except RecursionError:
            raise too_deep from None
        self.check_bytes(text)
        if depth_exceeds(value, MAX_DEPTH):  # PERF: after its size, which is cheaper to see
            raise too_deep
        return GrammarSource("json_schema", text.decode())

    def enclosed(self, value: object) -> GrammarSource:
        """``{"schema": …}``, with a name, a description and ``strict``, which change nothing."""
        if not isinstance(value, dict):
            raise self.wrong("of type `json_schema` must hold an object with `schema`")
        return self.schema(value.get("schema"))

    def check_bytes(self, text: bytes) -> None:
        if len(text) > MAX_GRAMMAR_BYTES:
            raise self.wrong(f"must be at most {MAX_GRAMMAR_BYTES} bytes long")


def native(kind: str, value: object, field: str = "grammar") -> GrammarSource:
    """TGI's ``{"type": kind, "value": value}``. Raises RequestError (VALIDATION)."""
    at = _Field(field)
    if kind in ("json", "json_object"):
        return json_schema(value, field)
    if kind == "json_schema":
        return at.enclosed(value)
    if kind == "regex":
        return regex(value, field)
    if kind == "lark":
        return at.string("lark", value)
    raise at.wrong(f"must have a `type` of {', '.join(TYPES)}")


def response_format(value: object, field: str = "response_format") -> GrammarSource | None:
    """``response_format`` of the OpenAI routes, TGI's forms too; None where anything may come.

    Raises RequestError (VALIDATION).
    """
    at = _Field(field)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise at.wrong("must be an object")
    kind = value.get("type")
    if kind not in RESPONSE_TYPES:
        raise at.wrong(f"must have a `type` of {', '.join(RESPONSE_TYPES)}")
    if kind == "text":
        return None
    if kind == "json_object" and value.get("value") is None:
        return ANY_OBJECT
    if kind == "json_schema" and "json_schema" in value:
        return _openai_schema(value["json_schema"], at)
    if kind == "regex":
        return at.string(kind, _only(value, _REGEX_KEYS, at))
    if "value" not in value:
        needed = "json_schema" if kind == "json_schema" else "value"
        raise at.wrong(f"of type `{kind}` must have `{needed}`")
    return native(kind, value["value"], field)


def json_schema(value: object, field: str) -> GrammarSource:
    """A schema, as an object or as text. Raises RequestError (VALIDATION)."""
    at = _Field(field)
    return at.schema(at.parsed(value))


def regex(value: object, field: str) -> GrammarSource:
    """A regular expression. Raises RequestError (VALIDATION)."""
    return _Field(field).string("regex", value)


def grammar(value: object, field: str) -> GrammarSource:
    """A grammar as llama.cpp writes them, or in llguidance's Lark. Raises RequestError."""
    return _Field(field).string("gbnf", value)


def choice(value: object, field: str) -> GrammarSource:
    """Texts, one of which is the answer. Raises RequestError (VALIDATION)."""
    at = _Field(field)
    if not isinstance(value, list) or not value:
        raise at.wrong("must hold a list of texts")
    if not all(isinstance(text, str) and text for text in value):
        raise at.wrong("must hold texts, none of which is empty")
    lark = "start: " + " | ".join(json.dumps(text) for text in value)
    at.check_bytes(lark.encode())
    return GrammarSource("lark", lark)


def structured_outputs(value: object, field: str) -> GrammarSource | None:
    """As vLLM has them: an object with one form in it. Raises RequestError (VALIDATION)."""
    at = _Field(field)
    if not isinstance(value, dict):
        raise at.wrong("must be an object")
    given = {name: inner for name, inner in value.items() if inner not in (None, False)}
    unknown = next((name for name in given if name not in _STRUCTURED), None)
    if unknown is not None:
        raise at.wrong(f"takes {', '.join(_STRUCTURED)}; `{unknown}` is not supported")
    if len(given) != 1:
        raise at.wrong(f"must have one of {', '.join(_STRUCTURED)}")
    ((name, inner),) = given.items()
    return _STRUCTURED[name](inner, f"{field}.{name}")


_STRUCTURED: dict[str, Callable[[object, str], GrammarSource]] = {
    "json": json_schema,
    "regex": regex,
    "choice": choice,
    "grammar": grammar,
    "json_object": lambda value, field: ANY_OBJECT,
}


def _openai_schema(value: object, at: _Field) -> GrammarSource:
    """OpenAI's ``json_schema``: without a schema, any object will do."""
    if isinstance(value, dict) and value.get("schema") is None:
        return ANY_OBJECT
    return at.enclosed(value)


def _only(value: dict[str, Any], names: tuple[str, ...], at: _Field) -> object:
    """The value of the one name that is there."""
    found = [name for name in names if value.get(name) is not None]
    if len(found) != 1:
        raise at.wrong(f"of type `regex` must have one of {', '.join(f'`{n}`' for n in names)}")
    return value[found[0]]
