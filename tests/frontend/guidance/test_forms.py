"""The forms of clients: what each means, and a refusal that names the field for everything else."""

import json
from typing import Any

import pytest

from common.errors import ErrorKind, RequestError
from common.guidance import MAX_GRAMMAR_BYTES
from frontend.guidance.forms import (
    ANY_OBJECT,
    MAX_DEPTH,
    choice,
    grammar,
    json_schema,
    native,
    regex,
    response_format,
    structured_outputs,
)
from frontend.guidance.source import GrammarSource

SCHEMA = {"properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
AS_SCHEMA = GrammarSource("json_schema", json.dumps(SCHEMA, separators=(",", ":")))
AS_REGEX = GrammarSource("regex", "a+")
AS_LARK = GrammarSource("lark", 'start: "a"')


@pytest.mark.parametrize(
    ("kind", "value", "source"),
    [
        ("json", SCHEMA, AS_SCHEMA),
        ("json", json.dumps(SCHEMA), AS_SCHEMA),
        ("json_object", SCHEMA, AS_SCHEMA),
        ("json_schema", {"schema": SCHEMA, "name": "x", "strict": True}, AS_SCHEMA),
        ("json", {"type": "integer"}, GrammarSource("json_schema", '{"type":"integer"}')),
        ("regex", "a+", AS_REGEX),
        ("lark", 'start: "a"', AS_LARK),
    ],
)
def test_tgi_forms(kind: str, value: Any, source: GrammarSource) -> None:
    assert native(kind, value) == source
    assert response_format({"type": kind, "value": value}) == source


@pytest.mark.parametrize(
    ("given", "source"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, ANY_OBJECT),
        ({"type": "json_object", "value": None}, ANY_OBJECT),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, AS_SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, ANY_OBJECT),
        ({"type": "regex", "pattern": "a+"}, AS_REGEX),
        ({"type": "regex", "regex": "a+"}, AS_REGEX),
    ],
)
def test_openai_forms(given: Any, source: GrammarSource | None) -> None:
    assert response_format(given) == source


CHOICE = GrammarSource("lark", 'start: "yes" | "n\\"o"')


@pytest.mark.parametrize(
    ("name", "make", "value", "source"),
    [
        ("json", json_schema, SCHEMA, AS_SCHEMA),
        ("json", json_schema, json.dumps(SCHEMA), AS_SCHEMA),
        ("regex", regex, "a+", AS_REGEX),
        ("choice", choice, ["yes", 'n"o'], CHOICE),
        ("grammar", grammar, 'root ::= "a"', GrammarSource("gbnf", 'root ::= "a"')),
    ],
)
def test_vllms_forms(name: str, make: Any, value: Any, source: GrammarSource) -> None:
    assert make(value, f"guided_{name}") == source
    assert structured_outputs({name: value}, "structured_outputs") == source
    others = {"json": None, "regex": None, "json_object": False, "whitespace_pattern": None}
    assert structured_outputs({**others, name: value}, "structured_outputs") == source


def test_vllms_json_object() -> None:
    assert structured_outputs({"json_object": True}, "structured_outputs") == ANY_OBJECT


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "`structured_outputs` must be an object"),
        ({}, "`structured_outputs` must have one of json, regex, choice, grammar, json_object"),
        ({"regex": "a", "json": {}}, "must have one of"),
        ({"structural_tag": "x"}, "`structural_tag` is not supported"),
        ({"grammar": ["x"]}, "`structured_outputs.grammar` of type `gbnf` must hold a string"),
        ({"json": "["}, "`structured_outputs.json` holds a string that is not JSON"),
        ({"regex": 3}, "`structured_outputs.regex` of type `regex` must hold a string"),
        ({"choice": []}, "`structured_outputs.choice` must hold a list of texts"),
        ({"choice": ["a", ""]}, "`structured_outputs.choice` must hold texts, none of which"),
        ({"choice": ["a" * MAX_GRAMMAR_BYTES]}, "must be at most"),
    ],
)
def test_vllms_forms_without_a_meaning(value: Any, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        structured_outputs(value, "structured_outputs")
    assert caught.value.kind is ErrorKind.VALIDATION
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("yaml", "x", "must have a `type` of json, json_object"),
        ("json", [1], "must hold a JSON schema"),
        ("json", "{", "holds a string that is not JSON"),
        ("json", "[1]", "must hold a JSON schema"),
        ("json", None, "must hold a JSON schema"),
        ("json_schema", SCHEMA, "must hold a JSON schema"),
        ("json_schema", json.dumps({"schema": SCHEMA}), "an object with `schema`"),
        ("regex", {"a": 1}, "of type `regex` must hold a string"),
        ("lark", 3, "of type `lark` must hold a string"),
        ("regex", "a" * (MAX_GRAMMAR_BYTES + 1), "bytes long"),
        ("regex", "é" * (MAX_GRAMMAR_BYTES // 2 + 1), "bytes long"),
        ("json", " " * (MAX_GRAMMAR_BYTES + 1), "bytes long"),
        ("json", {"enum": ["a" * MAX_GRAMMAR_BYTES]}, "bytes long"),
    ],
)
def test_refusals(kind: str, value: Any, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        native(kind, value)
    assert caught.value.kind is ErrorKind.VALIDATION
    assert "`grammar`" in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("json", "must be an object"),
        ({}, "must have a `type` of text, json"),
        ({"type": ["json"]}, "must have a `type` of text, json"),
        ({"type": "json"}, "of type `json` must have `value`"),
        ({"type": "lark"}, "of type `lark` must have `value`"),
        ({"type": "json_schema"}, "must have `json_schema`"),
        ({"type": "json_schema", "json_schema": "x"}, "an object with `schema`"),
        ({"type": "json_schema", "json_schema": {"schema": 3}}, "must hold a JSON schema"),
        ({"type": "regex"}, "must have one of `value`, `pattern`, `regex`"),
        ({"type": "regex", "value": "a", "pattern": "b"}, "must have one of"),
        ({"type": "regex", "pattern": 3}, "must hold a string"),
    ],
)
def test_refused_response_formats(given: Any, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        response_format(given)
    assert "`response_format`" in caught.value.message
    assert words in caught.value.message


def nested(depth: int) -> Any:
    value: Any = "x"
    for level in range(depth):
        value = {"items": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize("depth", [MAX_DEPTH, 300, 900])
def test_deep_schemas(depth: int) -> None:
    with pytest.raises(RequestError, match="nest deeper"):
        native("json", {"enum": nested(depth)})
    with pytest.raises(RequestError, match="nest deeper"):
        native("json", json.dumps({"enum": nested(depth)}))
    assert native("json", {"enum": nested(MAX_DEPTH - 1)})


def test_a_schema_in_a_string_that_is_deeper_than_anything_read() -> None:
    with pytest.raises(RequestError, match="nest deeper"):
        native("json", '{"enum": ' + "[" * 100_000)


def test_integers_of_schemas_are_exact() -> None:
    for given in ({"maximum": 2**64}, f'{{"maximum": {2**64}}}'):
        assert native("json", given).text == f'{{"maximum":{2**64}}}'
