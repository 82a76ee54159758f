"""The playground is served when the settings say so, alone and safely."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

import frontend
from common.keys import digests
from frontend.page import content_security_policy
from tests.frontend.fakes import serve

PAGE = (Path(frontend.__file__).parent / "playground" / "playground.html").read_text("utf-8")


def test_the_page(model_dir: Path) -> None:
    server = serve(model_dir)
    answer = server.get("/playground")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.text == PAGE
    assert server.client.simulate_head("/playground").content == b""
    assert server.client.simulate_post("/playground").status_code == 405


def test_it_can_be_switched_off(model_dir: Path) -> None:
    server = serve(model_dir, playground=False)
    assert server.get("/playground").status_code == 404
    assert server.get("/docs").status_code == 200


def test_keys_close_it_unless_it_is_opened(model_dir: Path) -> None:
    locked = {"api_key_digests": digests(["hush"]), "playground": True}
    assert serve(model_dir, **locked).get("/playground").status_code == 401
    opened = serve(model_dir, **locked, open_routes=["/playground"])
    assert opened.get("/playground").text == PAGE
    assert opened.get("/info").status_code == 401


def test_the_policy_allows_the_page_itself_and_nothing_else(model_dir: Path) -> None:
    sent = serve(model_dir).get("/playground").headers["content-security-policy"]
    policy = dict(part.split(" ", 1) for part in sent.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for tag in ("script", "style"):
        text = PAGE.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not any("unsafe" in value or "*" in value for value in policy.values())


def test_a_page_with_a_second_script_gets_no_policy() -> None:
    page = "<style>a</style><script>b</script>"
    assert "script-src" in content_security_policy(page)
    with pytest.raises(ValueError, match="too many values"):
        content_security_policy(page + "<script>c</script>")


def test_the_page_needs_nothing_from_elsewhere_and_reads_no_text_as_html() -> None:
    assert re.findall(r"https?://|//\w+\.\w+|@import|\burl\(", PAGE) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", PAGE) == []
    assert re.findall(r"<[^>]*\s(?:on\w+|style|src)=", PAGE) == []
    assert PAGE.count("<script") == PAGE.count("<style") == 1
    assert len(PAGE.splitlines()) < 600


def test_it_keeps_nothing() -> None:
    assert re.findall(r"localStorage|sessionStorage|indexedDB|cookie|history\.", PAGE) == []


def test_every_field_has_a_label() -> None:
    fields = re.findall(r"<(?:input|textarea)\b[^>]*>", PAGE)
    assert len(fields) >= 12
    labelled = "".join(re.findall(r"<label\b.*?</label>", PAGE, re.DOTALL))
    assert [one for one in fields if one not in labelled and "aria-label=" not in one] == []
