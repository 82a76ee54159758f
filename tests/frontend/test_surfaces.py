"""Errors in the shape of each API, whatever raised them; methods that a path does not answer."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import ErrorKind, RequestError
from common.keys import digests
from frontend.answers import request_error_document
from frontend.surfaces import Surface, error_document, surface_of
from tests.frontend.fakes import Server, serve
from tests.frontend.routes import routes


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        ("/", Surface.NATIVE),
        ("/generate", Surface.NATIVE),
        ("/invocations", Surface.NATIVE),
        ("/vertex", Surface.NATIVE),
        ("/v1", Surface.OPENAI),
        ("/v1/chat/completions", Surface.OPENAI),
        ("/v1/messagesque", Surface.OPENAI),
        ("/v1x", Surface.NATIVE),
        ("/v1/messages", Surface.ANTHROPIC),
        ("/v1/messages/count_tokens", Surface.ANTHROPIC),
        ("/v2", Surface.KSERVE),
        ("/v2/models/m/infer", Surface.KSERVE),
        ("/v22", Surface.NATIVE),
    ],
)
def test_paths_have_a_surface(path: str, surface: Surface) -> None:
    assert surface_of(path) is surface


def check(answer: Any, surface: Surface, status: int) -> None:
    """An error in the words of its surface, and nothing else."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    match surface:
        case Surface.NATIVE:
            assert set(found) == {"error", "error_type"}
            assert isinstance(found["error"], str)
        case Surface.OPENAI:
            assert set(found) == {"error", "error_type"}
            assert set(found["error"]) == {"message", "type", "code", "param", "http_status_code"}
            assert found["error"]["http_status_code"] == status
        case Surface.ANTHROPIC:
            assert (found["type"], set(found)) == ("error", {"type", "error", "request_id"})
            assert set(found["error"]) == {"type", "message"}
            assert found["request_id"] == answer.headers["request-id"]
        case Surface.KSERVE:
            assert set(found) == {"error"}
            assert isinstance(found["error"], str)


NOWHERE = {
    Surface.NATIVE: "/nothing",
    Surface.OPENAI: "/v1/nothing",
    Surface.ANTHROPIC: "/v1/messages/nothing",
    Surface.KSERVE: "/v2/nothing",
}


@pytest.mark.parametrize("surface", Surface)
def test_unknown_paths_and_missing_keys(model_dir: Path, server: Server, surface: Surface) -> None:
    path = NOWHERE[surface]
    unknown = server.get(path)
    check(unknown, surface, 404)
    assert "There is no such route: GET /docs" in unknown.text
    locked = serve(model_dir, api_key_digests=digests(["k"])).get(path)
    check(locked, surface, 401)
    assert "Authorization: Bearer" in locked.text


POSTS = {
    Surface.NATIVE: "/generate",
    Surface.OPENAI: "/v1/chat/completions",
    Surface.KSERVE: "/v2/models/m/infer",
}


@pytest.mark.parametrize(("surface", "path"), POSTS.items())
def test_every_status_has_the_shape(server: Server, surface: Surface, path: str) -> None:
    def post(body: bytes, content_type: str = "application/json") -> Any:
        headers = {"content-type": content_type}
        return server.client.simulate_post(path, body=body, headers=headers)

    check(post(b"{"), surface, 400)
    check(post(b"{}", "text/plain"), surface, 415)
    check(post(b'{"a": "' + b"a" * 2_000_000 + b'"}'), surface, 413)
    check(post(b"[]"), surface, 422)
    answer = server.client.simulate_put(path)
    check(answer, surface, 405)
    assert set(answer.headers["allow"].split(", ")) >= {"POST", "OPTIONS"}
    assert "PUT is not a method of this route: it takes POST" in answer.text


@pytest.mark.parametrize("surface", Surface)
def test_mistakes_of_ours(server: Server, surface: Surface) -> None:
    class Broken:
        def on_get(self, req: object, resp: object) -> None:
            raise ValueError("the secret")

    path = f"{NOWHERE[surface]}/broken"
    server.client.app.add_route(path, Broken())
    answer = server.get(path)
    check(answer, surface, 500)
    assert "secret" not in answer.text


def test_every_get_route_answers_head_and_options(server: Server) -> None:
    for path, methods in routes(server):
        if "GET" in methods:
            assert "HEAD" in methods, path
            answer = server.client.simulate_head(path)
            assert answer.content == b""
            assert answer.status_code == server.get(path).status_code
        answer = server.client.simulate_options(path)
        assert answer.status_code == 200
        assert set(answer.headers["allow"].split(", ")) == methods
        wrong = server.client.simulate_delete(path)
        assert wrong.status_code == 405
        assert methods <= set(wrong.headers["allow"].split(", "))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (424, "api_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_anthropic_types(status: int, kind: str) -> None:
    document = error_document("m", "t", status, Surface.ANTHROPIC, "r1")
    assert document == {
        "type": "error",
        "error": {"type": kind, "message": "m"},
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("`top_p` must be > 0.0 and < 1.0", "top_p"),
        ("`inputs` tokens + `max_tokens` must be <= 5", "inputs"),
        ("`messages[0].content[1]`: only text", "messages[0].content[1]"),
        ("Object missing required field `messages`", "messages"),
        ("Expected `int`, got `str` - at `$.max_tokens`", "max_tokens"),
        ("Expected `str`, got `null` - at `$.messages[0].role`", "messages[0].role"),
        ("Expected `object`, got `array`", None),
        ("the body needs something", None),
    ],
)
def test_openai_param(message: str, param: str | None) -> None:
    error = RequestError(ErrorKind.VALIDATION, message)
    document = request_error_document(error, Surface.OPENAI)
    assert document["error"]["param"] == param
    assert next(iter(document)) == "error"
    failed = RequestError(ErrorKind.GENERATION, message)
    assert request_error_document(failed, Surface.OPENAI)["error"]["param"] is None
