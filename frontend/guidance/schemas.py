"""What a client's JSON schema is taken to mean where it leaves that open: as TGI takes it. Pure.

Keys come in the order of the schema, and between the elements of the output stands at most one
space. Where there are ``properties``, the value is an object, and it has no other keys unless the
schema says so: a small model would go on inventing keys until its tokens run out.
"""

from collections.abc import Iterator
from typing import Any

_OUTPUT = {"whitespace_pattern": " ?", "coerce_one_of": True}
"""llguidance's options. It has no ``oneOf``; TGI takes it for ``anyOf``, too."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems")
_OTHER_KEYS = ("additionalProperties", "unevaluatedProperties", "patternProperties")
_ONE_OF_MANY = ("properties", "$ref", "$dynamicRef", "anyOf", "oneOf", "if", "not")


def prepare_schema(schema: Any) -> Any:
    """``schema`` with all this said in it; the client's own ``x-guidance`` wins."""
    if not isinstance(schema, dict):
        return schema
    found = list(schemas_in(schema))
    close = not any(map(_combines, found))
    for item in found:
        _complete(item, close=close)
    own = schema.get("x-guidance", {})
    return {**schema, "x-guidance": {**_OUTPUT, **own} if isinstance(own, dict) else own}


def schemas_in(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every schema in a schema, itself included; not what only looks like one, in an ``enum``."""
    waiting: list[Any] = [schema]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, dict):
            continue
        yield item
        for name in _MAPS:
            inner = item.get(name)
            if isinstance(inner, dict):
                waiting.extend(inner.values())
        for name in _LISTS:
            inner = item.get(name)
            if isinstance(inner, list):
                waiting.extend(inner)
        waiting.extend(item.get(name) for name in _SINGLE)


def _combines(schema: dict[str, Any]) -> bool:
    """Whether several descriptions of one object have to hold together.

    A key of one of them is an unknown key to the others, so none of them may be closed.
    """
    parts = sum(name in schema for name in _ONE_OF_MANY)
    both = schema.get("allOf")
    return parts + (len(both) if isinstance(both, list) else 0) > 1


def _complete(schema: dict[str, Any], *, close: bool) -> None:
    """Say in place what goes without saying."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        if "type" not in schema and ("items" in schema or "prefixItems" in schema):
            schema["type"] = "array"
        return
    schema.setdefault("type", "object")
    required = schema.get("required", [])
    known = isinstance(required, list) and all(
        isinstance(name, str) and name in properties for name in required
    )
    if close and known and not any(name in schema for name in _OTHER_KEYS):
        schema["additionalProperties"] = False
