"""What is added to a client's schema, and what is left alone."""

import copy
from typing import Any

import pytest

from frontend.guidance.schemas import prepare_schema

STRING = {"type": "string"}


def prepared(schema: Any) -> Any:
    given = prepare_schema(schema)
    given.pop("x-guidance")
    return given


def test_properties_mean_an_object_without_other_keys() -> None:
    assert prepared({"properties": {"a": STRING}, "required": ["a"]}) == {
        "properties": {"a": STRING},
        "required": ["a"],
        "type": "object",
        "additionalProperties": False,
    }
    assert prepared({"items": STRING}) == {"items": STRING, "type": "array"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": STRING}, "additionalProperties": True},
        {"type": "object", "properties": {"a": STRING}, "patternProperties": {"x": STRING}},
        {"type": "object", "properties": {"a": STRING}, "required": ["b"]},
        {"type": "object"},
        {"type": ["object", "null"]},
        {"enum": [{"properties": {"a": 1}}], "default": {"properties": {}}},
    ],
)
def test_left_alone(schema: dict[str, Any]) -> None:
    assert prepared(dict(schema)) == schema


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: {"properties": {"x": inner}, "type": "object", "additionalProperties": 1},
        lambda inner: {"type": "array", "items": inner},
        lambda inner: {"type": "array", "prefixItems": [STRING, inner]},
        lambda inner: {"anyOf": [STRING, inner]},
        lambda inner: {"$ref": "#/$defs/x", "$defs": {"x": inner}},
        lambda inner: {"allOf": [{"$ref": "#/definitions/x"}], "definitions": {"x": inner}},
        lambda inner: {"type": "object", "additionalProperties": inner},
        lambda inner: {"properties": {"properties": inner}, "additionalProperties": True},
    ],
)
def test_every_place_of_a_schema(wrap: Any) -> None:
    assert (
        str(prepared(wrap({"properties": {"a": STRING}}))).count("'additionalProperties': False")
        == 1
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"properties": {"a": STRING}}, {"properties": {"b": STRING}}]},
        {"properties": {"a": STRING}, "anyOf": [{"properties": {"b": STRING}}]},
        {"$ref": "#/$defs/x", "properties": {"a": STRING}, "$defs": {"x": {"properties": {}}}},
        {"$defs": {"x": {"properties": {}}}, "allOf": [{"$ref": "#/$defs/x"}, {"properties": {}}]},
    ],
)
def test_parts_that_hold_together_stay_open(schema: dict[str, Any]) -> None:
    assert "additionalProperties" not in str(prepared(schema))


def test_the_clients_own_options_win() -> None:
    given = prepare_schema({"type": "object", "x-guidance": {"coerce_one_of": False}})
    assert given["x-guidance"] == {"whitespace_pattern": " ?", "coerce_one_of": False}
    assert prepare_schema({"x-guidance": 3})["x-guidance"] == 3


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": 3},
        {"anyOf": {"a": 1}},
        {"$defs": [1]},
        {"items": [STRING]},
        True,
        {"allOf": 3},
    ],
)
def test_nonsense_is_left_to_the_checker(schema: Any) -> None:
    without = prepare_schema(copy.deepcopy(schema))
    if isinstance(without, dict):
        without.pop("x-guidance")
        without.pop("type", None)
    assert without == schema
