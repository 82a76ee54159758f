"""The document is valid, complete, and says the same as the application's routes and types."""

import json
import re
from pathlib import Path
from typing import Any

import falcon.inspect
import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from common.errors import ErrorKind
from frontend.openapi.document import build, render
from frontend.openapi.fields import MEANINGS, REFINEMENTS
from frontend.openapi.operations import OPERATIONS, TAGS
from frontend.openapi.operations.operation import GENERATION
from frontend.openapi.schemas import attribute_docs
from frontend.schema.answers import Answer
from frontend.schema.generate import GenerateBody
from tests.frontend.fakes import serve

DOCUMENT = build("1.2.3")
SCHEMAS = DOCUMENT["components"]["schemas"]


def test_every_route_is_an_operation_and_the_reverse(model_dir: Path) -> None:
    app: Any = serve(model_dir).client.app
    routes = set()
    for route in falcon.inspect.inspect_routes(app):
        path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
        methods = {method.method for method in route.methods if not method.internal}
        assert ("HEAD" in methods) <= ("GET" in methods)
        routes |= {(method.lower(), path) for method in methods - {"HEAD", "OPTIONS"}}
    documented = {(one.method, one.path) for one in OPERATIONS}
    assert routes - documented == set(), "no entry in frontend/openapi/operations.py"
    assert documented - routes == set(), "entries without a route"
    assert len(documented) == len(OPERATIONS)


def test_it_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(json.loads(render("1.2.3"))).validate()


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_each_schema_is_valid_and_described(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"]
    bare = [field for field, part in schema["properties"].items() if not part.get("description")]
    assert bare == [], "no docstring below the field, no entry in frontend/openapi/fields.py"
    assert "additionalProperties" not in schema


def test_references_lead_somewhere() -> None:
    for kind, name in re.findall(r'"#/components/(\w+)/([\w-]+)"', json.dumps(DOCUMENT)):
        assert name in DOCUMENT["components"][kind]


def test_no_entry_for_fields_that_do_not_exist() -> None:
    fields = {f"{name}.{field}" for name in SCHEMAS for field in SCHEMAS[name]["properties"]}
    bases = {"OpenAIBody.temperature"}
    plain = {field.split(".")[1] for field in fields}
    assert {key for key in MEANINGS if key not in fields | plain | bases} == set()
    assert set(REFINEMENTS) <= fields


def test_default_parameters_are_what_the_document_says() -> None:
    given = REFINEMENTS["GenerateBody.parameters"]["default"]
    body = {"inputs": "a"}
    assert msgspec.convert(body, GenerateBody) == msgspec.convert(
        {**body, "parameters": given}, GenerateBody
    )


def test_operations_have_what_readers_need() -> None:
    described = [one for verbs in DOCUMENT["paths"].values() for one in verbs.values()]
    assert len({one["operationId"] for one in described}) == len(described) == len(OPERATIONS)
    assert {one.tag for one in OPERATIONS} == set(TAGS)
    for one in OPERATIONS:
        assert one.summary
        assert bool(one.examples) == bool(one.bodies), one.path
        assert len({example.name for example in one.examples}) == len(one.examples)


def test_examples_match_their_schemas() -> None:
    checked = 0
    for path, verbs in DOCUMENT["paths"].items():
        if "post" not in verbs:
            continue
        content = verbs["post"]["requestBody"]["content"]["application/json"]
        root = {**content["schema"], "components": DOCUMENT["components"]}
        validator = jsonschema.Draft202012Validator(root)
        for example in content["examples"].values():
            validator.validate(example["value"])
            checked += 1
        assert not validator.is_valid([]), path
    assert checked >= 8


def test_every_failure_of_a_request_is_told() -> None:
    elsewhere = {ErrorKind.UNAUTHORIZED, ErrorKind.NOT_FOUND}
    statuses = {kind.http_status for kind in ErrorKind if kind not in elsewhere}
    assert statuses == set(GENERATION)


def test_answers_tell_absent_keys_from_null_ones() -> None:
    details = SCHEMAS["Details"]
    assert "best_of_sequences" not in details["required"]
    assert "seed" in details["required"]
    assert SCHEMAS["StreamEvent"]["properties"]["details"]["anyOf"][-1] == {"type": "null"}


def test_docstrings_below_attributes_are_found() -> None:
    class Local(Answer, frozen=True):
        """Not at the top of a module, so not found."""

        field: int
        """Never read."""

    assert attribute_docs(Local) == {}
    assert attribute_docs(GenerateBody)["parameters"].startswith("Without the key")


def test_static_ranges_are_told() -> None:
    index = SCHEMAS["StreamEvent"]["properties"]["index"]
    assert (index["minimum"], index["maximum"]) == (0, 2**32 - 1)
    prompt = SCHEMAS["CompletionBody"]["properties"]["prompt"]
    assert jsonschema.Draft202012Validator(prompt).is_valid([[1, 2], "a"])
    assert not jsonschema.Draft202012Validator(prompt).is_valid({})
