"""The page and the document are served, alone and safely."""

import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import frontend.openapi
from frontend.openapi.document import build, render
from tests.frontend.fakes import Server, serve

PAGE = Path(frontend.openapi.__file__).with_name("docs.html").read_text(encoding="utf-8")


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.mark.parametrize("path", ["/openapi.json", "/api-doc/openapi.json"])
def test_the_document(server: Server, path: str) -> None:
    for _ in range(2):
        answer = server.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.json == build("1.2.3")
    assert server.client.simulate_head(path).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page(server: Server, path: str) -> None:
    answer = server.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text == PAGE
    assert server.client.simulate_head(path).content == b""


def test_the_policy_allows_the_page_itself_and_nothing_else(server: Server) -> None:
    policy = dict(
        part.split(" ", 1)
        for part in server.get("/docs").headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for tag in ("script", "style"):
        text = PAGE.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not any("unsafe" in value or "*" in value for value in policy.values())


def test_the_page_needs_nothing_from_elsewhere_and_reads_no_text_as_html() -> None:
    assert re.findall(r"https?://|//\w+\.\w+|@import|\burl\(", PAGE) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", PAGE) == []
    assert re.findall(r"<[^>]*\s(?:on\w+|style|src)=", PAGE) == []
    assert PAGE.count("<script") == PAGE.count("<style") == 1
    assert len(PAGE.splitlines()) < 400


def test_the_document_is_printed_without_a_server() -> None:
    command = [sys.executable, "-m", "frontend.openapi"]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    version = re.search(rb'"version": "([^"]+)"', printed)
    assert version is not None
    assert printed == render(version[1].decode(), indent=True) + b"\n"
