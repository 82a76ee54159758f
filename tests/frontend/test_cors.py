"""Browsers: preflight requests, allowed and readable headers, listed origins."""

from pathlib import Path
from typing import Any

import pytest

from common.keys import digests
from tests.frontend.fakes import Server, serve


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def preflight(server: Server, origin: str, asked: str = "", path: str = "/generate") -> Any:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    if asked:
        headers["Access-Control-Request-Headers"] = asked
    return server.client.simulate_options(path, headers=headers)


def allowed(answer: Any) -> set[str]:
    return set(answer.headers["access-control-allow-headers"].split(","))


def test_cors_everywhere(server: Server) -> None:
    for path in ("/info", "/nothing", "/v1/messages"):
        assert server.get(path).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/nothing"])
def test_preflight_needs_no_key(model_dir: Path, path: str) -> None:
    locked = serve(model_dir, api_key_digests=digests(["k"]))
    answer = preflight(locked, "https://a.example", path=path)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET,POST"


def test_what_clients_in_browsers_may_send(server: Server) -> None:
    names = allowed(preflight(server, "https://a.example"))
    assert {
        "authorization", "content-type", "x-api-key", "api-key", "x-request-id", "last-event-id",
        "anthropic-version", "x-request-timeout-ms",
    } <= names  # fmt: skip
    asked = "X-Stainless-Lang, openai-organization,anthropic-beta, cookie, x-evil, openai-"
    more = allowed(preflight(server, "https://a.example", asked)) - names
    assert more == {"x-stainless-lang", "openai-organization"}
    many = ",".join(f"openai-{n}" for n in range(10_000))
    assert len(allowed(preflight(server, "https://a.example", many))) < 100


def test_what_pages_may_read(server: Server) -> None:
    answer = server.post("/generate", {"inputs": "a"}, headers={"Origin": "https://a.example"})
    exposed = set(answer.headers["access-control-expose-headers"].split(","))
    assert {"x-request-id", "request-id", "retry-after", "x-generated-tokens"} <= exposed
    own = {name for name in answer.headers if name.startswith("x-")}
    assert own <= exposed
    assert "access-control-expose-headers" not in server.get("/info").headers


def test_listed_origins(model_dir: Path) -> None:
    server = serve(model_dir, cors_allow_origin=["https://a.example", "https://b.example"])
    for origin, is_listed in (("https://b.example", True), ("https://c.example", False)):
        expected = origin if is_listed else None
        answer = preflight(server, origin)
        assert answer.headers.get("access-control-allow-origin") == expected
        assert "origin" in answer.headers["vary"]
        plain = server.get("/info", headers={"Origin": origin})
        assert plain.headers.get("access-control-allow-origin") == expected
        assert ("access-control-expose-headers" in plain.headers) == is_listed
    assert "access-control-allow-origin" not in server.get("/info").headers


def test_options_without_an_origin_tells_the_methods(server: Server) -> None:
    answer = server.client.simulate_options("/info")
    assert answer.status_code == 200
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
