"""Outputs held to a form, in every way that the clients have of asking for it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import ValidationError
from openai import OpenAI

from tests.clients.talk import ABOUT_ANNA, GREEDY, PERSON
from tests.end_to_end.harness import Server

ANNA = {"name": "Anna", "age": 31}
NAMED = {"name": "person", "schema": PERSON}
PHONE = "[0-9]{3}-[0-9]{4}"
with_openai = pytest.mark.client("openai")
with_hub = pytest.mark.client("huggingface_hub")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def hub(server: Server) -> Iterator[InferenceClient]:
    with InferenceClient(server.url, provider="hf-inference", token="x") as opened:
        yield opened


def said(client: Any, form: Any, **fields: Any) -> str:
    """The content; ``client`` is either of the two, which are called alike."""
    answer = client.chat.completions.create(
        model="tgi", messages=[ABOUT_ANNA], response_format=form, **{**GREEDY, **fields}
    )
    assert answer.choices[0].finish_reason == "stop"
    return str(answer.choices[0].message.content)


@with_openai
def test_json_object(client: OpenAI) -> None:
    assert json.loads(said(client, {"type": "json_object"})) == ANNA


@with_openai
@pytest.mark.parametrize("strict", [True, False, None])
def test_json_schema(client: OpenAI, strict: bool | None) -> None:
    form = {"type": "json_schema", "json_schema": {**NAMED, "strict": strict}}
    assert json.loads(said(client, form)) == ANNA


@with_openai
def test_schema_holds_what_the_model_would_not_say(client: OpenAI) -> None:
    """Drawn at a temperature that makes nonsense of everything else."""
    levels = {"type": "string", "enum": ["low", "high"]}
    schema = {"type": "object", "properties": {"level": levels}, "required": ["level"]}
    form = {"type": "json_schema", "json_schema": {"name": "level", "schema": schema}}
    for seed in range(3):
        found = json.loads(said(client, form, temperature=2, seed=seed))
        assert found["level"] in ("low", "high")


@with_openai
@pytest.mark.parametrize(
    "form",
    [
        {"type": "json", "value": PERSON},
        {"type": "json_object", "value": PERSON},
        {"type": "json_schema", "value": NAMED},
        {"type": "json", "value": json.dumps(PERSON)},
    ],
    ids=["json", "json_object", "json_schema", "json as text"],
)
def test_tgi_forms(client: OpenAI, form: Any) -> None:
    assert json.loads(said(client, form)) == ANNA


@with_openai
def test_tgi_regex_in_chat(client: OpenAI) -> None:
    assert re.fullmatch(PHONE, said(client, {"type": "regex", "value": PHONE}))


@with_openai
def test_stream(client: OpenAI) -> None:
    form = {"type": "json_schema", "json_schema": NAMED}
    chunks = client.chat.completions.create(
        model="tgi", messages=[ABOUT_ANNA], response_format=form, stream=True, **GREEDY
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert json.loads(text) == ANNA


@with_openai
@pytest.mark.parametrize(
    "form",
    [
        {"type": "no-such-type"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no-such-type"}}},
        {"type": "regex", "value": "(unclosed"},
    ],
    ids=["type", "missing", "schema", "regex"],
)
def test_wrong_forms(client: OpenAI, form: Any) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=r"response_format|schema|regex"):
        said(client, form)


@with_hub
def test_hub_rewrites_a_schema(hub: InferenceClient) -> None:
    form = {"type": "json_schema", "json_schema": {**NAMED, "strict": True}}
    assert json.loads(said(hub, form)) == ANNA


@with_hub
@pytest.mark.parametrize("value", [PERSON, json.dumps(PERSON)], ids=["object", "text"])
def test_hub_grammar_json(hub: InferenceClient, value: Any) -> None:
    answer = hub.text_generation(
        "Anna is 31 years old. Write this as JSON.",
        grammar={"type": "json", "value": value},
        max_new_tokens=60,
        return_full_text=False,
    )
    assert json.loads(answer) == ANNA


@with_hub
def test_hub_grammar_regex(hub: InferenceClient) -> None:
    grammar = {"type": "regex", "value": PHONE}
    pieces = hub.text_generation(
        "Phone:", grammar=grammar, max_new_tokens=30, stream=True, details=True
    )
    shown = [piece.token.text for piece in pieces if not piece.token.special]
    assert re.fullmatch(PHONE, "".join(shown))


@with_hub
def test_hub_wrong_grammar(hub: InferenceClient) -> None:
    with pytest.raises(ValidationError, match=r"grammar|regex"):
        hub.text_generation("Phone:", grammar={"type": "regex", "value": "(unclosed"})
