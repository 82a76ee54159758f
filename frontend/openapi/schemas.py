"""Types to JSON schemas: msgspec writes the shapes, docstrings under the fields their meaning.

msgspec knows no docstrings of attributes; they are read from the source of the types, so that a
field is explained where it stands. Requests that are declared loosely are drawn more precisely in
``fields.py``.
"""

import ast
import inspect
import sys
from typing import Any

import msgspec

from frontend.openapi.fields import MEANINGS, REFINEMENTS

REFERENCE = "#/components/schemas/{name}"


def components(types: list[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for each type, and everything that they refer to, by name."""
    given, named = msgspec.json.schema_components(types, ref_template=REFERENCE)
    structs = _structs(types)
    for name, schema in named.items():
        _explain(schema, structs[name])
    return list(given), dict(sorted(named.items()))


def _structs(types: list[Any]) -> dict[str, type[msgspec.Struct]]:
    """Every struct that the types are made of, by name."""
    found: dict[str, type[msgspec.Struct]] = {}
    waiting = [msgspec.inspect.type_info(kind) for kind in types]
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls.__name__ in found:
                continue
            found[info.cls.__name__] = info.cls
            waiting += [field.type for field in info.fields]
        for part in ("item_type", "key_type", "value_type"):
            if hasattr(info, part):
                waiting.append(getattr(info, part))
        for parts in ("types", "item_types"):
            waiting += getattr(info, parts, ())
    return found


def _explain(schema: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """Give every property of a struct's schema its description and refinements."""
    del schema["title"]  # the name of the component, again
    # Answers may grow: clients must not be told that they never will.
    schema.pop("additionalProperties", None)
    schema["description"] = _prose(schema.get("description", ""))
    documented = attribute_docs(struct)
    for name, part in schema.get("properties", {}).items():
        refinement = _inherited(REFINEMENTS, struct, name) or {}
        if "$ref" not in refinement and ("anyOf" in refinement or "type" in refinement):
            for key in ("type", "anyOf"):
                part.pop(key, None)
        part.update(refinement)
        text = documented.get(name) or _inherited(MEANINGS, struct, name) or ""
        if name == struct.__struct_config__.tag_field:
            text = f"Always `{struct.__struct_config__.tag}`."
        if text:
            part["description"] = _prose(text)


def _inherited(table: dict[str, Any], struct: type, field: str) -> Any:
    """The entry of a struct's field: its own, that of a base, or that of any field so called."""
    names = [f"{base.__name__}.{field}" for base in struct.__mro__]
    return next((table[name] for name in (*names, field) if name in table), None)


def attribute_docs(struct: type) -> dict[str, str]:
    """The string below each attribute of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if not issubclass(base, msgspec.Struct) or base is msgspec.Struct:
            continue
        tree = ast.parse(inspect.getsource(sys.modules[base.__module__]))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == base.__name__:
                found |= _docs_in(node)
    return found


def _docs_in(node: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for statement, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[statement.target.id] = below.value.value
    return found


def _prose(text: str) -> str:
    """A docstring as the document's Markdown, in one line."""
    return " ".join(inspect.cleandoc(text).replace("``", "`").split())
