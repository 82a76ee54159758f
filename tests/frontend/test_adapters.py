"""Which adapter a request asks for, on every surface, and who is listed."""

from pathlib import Path
from typing import Any

import pytest

from common.adapters import Adapter
from common.messages import Submit
from frontend.resume.past import plan_of
from tests.frontend.fakes import Server, serve

ADAPTERS = [
    Adapter(name=name, digest=f"digest of {name}", directory="/a", source="/a")
    for name in ("org/sql", "poet")
]
MESSAGES = [{"role": "user", "content": "hello"}]
SURFACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
}


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir, adapters=ADAPTERS)


def chosen(server: Server, path: str, body: dict[str, Any]) -> str:
    """The digest that goes to the scheduler."""
    answer = server.post(path, body)
    assert answer.status_code == 200, answer.text
    return server.pipeline.of(Submit)[-1].spec.adapter


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
def test_native_routes_say_adapter_id(server: Server, path: str) -> None:
    for name, digest in (
        ("poet", "digest of poet"),
        ("org/sql", "digest of org/sql"),
        ("nobody", ""),
        ("", ""),
        (None, ""),
    ):
        body = {"inputs": "hello", "parameters": {"adapter_id": name}}
        assert chosen(server, path, body) == digest


@pytest.mark.parametrize("path", list(SURFACES))
@pytest.mark.parametrize("dialect", ["openai", "tgi"])
def test_the_others_say_model(model_dir: Path, path: str, dialect: str) -> None:
    server = serve(model_dir, adapters=ADAPTERS, messages_api_dialect=dialect)
    for name, digest in (("poet", "digest of poet"), ("tgi", ""), ("org/model", "")):
        assert chosen(server, path, {**SURFACES[path], "model": name}) == digest


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("field", "why"),
    [
        ({"adapter_id": "poet"}, "`adapter_id` is not taken here: name the adapter as `model`"),
        ({"watermark": True}, "`watermark` is not taken here: ask for it on the native routes"),
    ],
)
def test_fields_of_native_routes_are_refused_with_what_to_do(
    server: Server, path: str, field: dict[str, Any], why: str
) -> None:
    answer = server.post(path, {**SURFACES[path], **field})
    assert answer.status_code == 422
    assert why in answer.json["error"]["message"]


def test_every_choice_of_a_request_has_it(server: Server) -> None:
    body = {"prompt": ["a", "b"], "model": "poet", "n": 2}
    assert server.post("/v1/completions", body).status_code == 200
    submitted = server.pipeline.of(Submit)
    assert [one.spec.adapter for one in submitted] == ["digest of poet"] * 4


def test_chat_repeats_the_name_and_completions_the_model(server: Server) -> None:
    path = "/v1/chat/completions"
    assert server.post(path, {**SURFACES[path], "model": "poet"}).json["model"] == "poet"
    path = "/v1/completions"
    assert server.post(path, {**SURFACES[path], "model": "poet"}).json["model"] == "org/model"


def test_a_stream_that_is_taken_up_keeps_it(server: Server) -> None:
    chosen(server, "/generate", {"inputs": "hello", "parameters": {"adapter_id": "poet"}})
    spec = server.pipeline.of(Submit)[-1].spec
    assert plan_of(spec).adapter == "digest of poet"


def test_models_lists_them_with_their_parent(server: Server) -> None:
    base = {"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}
    adapters = [{**base, "id": name, "parent": "org/model"} for name in ("org/sql", "poet")]
    listed = server.get("/v1/models").json
    assert listed == {"object": "list", "data": [base, *adapters]}
    assert server.get("/v1/models/org/sql").json == adapters[0]
    assert server.get("/v1/models/nobody").status_code == 404
