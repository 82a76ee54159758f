"""The API keys: where they are looked for, what they close, and their file when it changes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from common.keys import digests
from common.routes import ALWAYS_OPEN, OPENABLE
from frontend.middleware.keys import KeyRing
from tests.frontend.fakes import Clock, Server, serve
from tests.frontend.routes import routes

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
KEY = "Hush-hush"


def locked(model_dir: Path, *keys: str, **changes: object) -> Server:
    return serve(model_dir, api_key_digests=digests(keys or (KEY,)), **changes)


def reached(server: Server, method: str, path: str, key: str | None = None) -> bool:
    """Whether a request got past the keys."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    answer = server.client.simulate_request(method, path, headers=headers)
    assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)
    return answer.status_code != 401


def test_every_route_is_closed_but_health(model_dir: Path) -> None:
    server = locked(model_dir)
    found = routes(server)
    assert {"/generate", "/info", "/metrics", "/v1/chat/completions"} <= {path for path, _ in found}
    for path, methods in [*found, ("/nothing", set()), ("/v1/nothing", set())]:
        for method in METHODS:
            is_open = method in ("GET", "HEAD") and path in ALWAYS_OPEN
            assert reached(server, method, path) == is_open, (method, path)
        for method in methods:
            assert reached(server, method, path, KEY), (method, path)
    assert {"/", "/health", "/ping"} <= ALWAYS_OPEN & {path for path, _ in found}


def test_routes_can_be_opened_one_by_one(model_dir: Path) -> None:
    server = locked(model_dir, open_routes=["/info", "/v1/models"])
    assert reached(server, "GET", "/info")
    assert reached(server, "HEAD", "/v1/models")
    for method, path in [("POST", "/info"), ("GET", "/metrics"), ("GET", "/v1/models/any")]:
        assert not reached(server, method, path)


def test_what_can_be_opened_is_there_and_only_read(model_dir: Path) -> None:
    found = dict(routes(serve(model_dir)))
    assert set(OPENABLE) <= found.keys()
    assert all(found[path] == {"GET", "HEAD"} for path in OPENABLE)


def test_the_health_route_of_vertex_is_open(model_dir: Path) -> None:
    server = locked(model_dir, vertex_health_route="/here", vertex_predict_route="/there")
    assert reached(server, "GET", "/here")
    assert not reached(server, "POST", "/there")


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Authorization", "Bearer Hush-hush", 200),
        ("Authorization", "Bearer   Hush-hush ", 200),
        ("Authorization", "bearer Hush-hush", 200),
        ("Authorization", "Bearer hush-hush", 401),
        ("Authorization", "Basic Hush-hush", 401),
        ("Authorization", "BearerHush-hush", 401),
        ("Authorization", "Hush-hush", 401),
        ("Authorization", "Bearer ", 401),
        ("Authorization", "Bearer Hüsh", 401),
        ("x-api-key", "Hush-hush", 200),
        ("x-api-key", "Bearer Hush-hush", 401),
        ("x-api-key", "HUSH-HUSH", 401),
        ("api-key", "Hush-hush", 200),
        ("api-key", "", 401),
    ],
)
def test_where_keys_are_looked_for(model_dir: Path, name: str, value: str, status: int) -> None:
    answer = locked(model_dir).post("/tokenize", {"inputs": "a"}, headers={name: value})
    assert answer.status_code == status


def test_one_right_key_is_enough(model_dir: Path) -> None:
    server = locked(model_dir, "one", "two", "drei-ü")
    for key in ("one", "two"):
        assert reached(server, "GET", "/info", key)
    assert not reached(server, "GET", "/info", "three")
    both = {"Authorization": "Bearer of bad news", "x-api-key": "two"}
    assert server.get("/info", headers=both).status_code == 200
    sent = "drei-ü".encode().decode("latin-1")  # bytes, as WSGI shows them
    assert server.get("/info", headers={"x-api-key": sent}).status_code == 200


def test_any_key_is_accepted_when_none_is_set(model_dir: Path) -> None:
    headers = {"Authorization": "Bearer whatever", "x-api-key": "else"}
    assert serve(model_dir).post("/tokenize", {"inputs": "a"}, headers=headers).status_code == 200


def raising(error: Exception) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail


class Ring:
    """A key ring over a file whose changes are seen, whatever the file system's clock does."""

    def __init__(self, path: Path, content: str | None) -> None:
        self.clock = Clock()
        self.path = path
        self.changes = 0
        if content is not None:
            self.write(content)
        self.ring = KeyRing(digests(["fixed"]), str(path), self.clock)

    def write(self, content: str) -> None:
        self.path.write_text(content)
        self.changes += 1
        os.utime(self.path, (self.changes, self.changes))

    def accepts(self, key: str, *, after_s: float = 0.0) -> bool:
        self.clock.now += after_s
        return self.ring.accepts([key.encode()])


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "keys", "a\nb\n")
    assert [ring.accepts(key) for key in ("a", "b", "c", "fixed")] == [True, True, False, True]
    ring.write("b\nc\n")
    assert not ring.accepts("c", after_s=0.9)  # looked at no more than once a second
    assert ring.accepts("c", after_s=0.2)
    assert [ring.accepts(key) for key in ("a", "b", "fixed")] == [False, True, True]


def test_a_file_that_cannot_be_read_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its keys may have been revoked, and nothing changes any more."""
    ring = Ring(tmp_path / "keys", "a\n")
    ring.write("b\n")
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", raising(OSError(errno.EMFILE, "Too many open files")))
        assert ring.accepts("a", after_s=1.0)
        assert ring.accepts("a", after_s=1.0)
    assert not ring.accepts("a", after_s=1.0)
    assert ring.accepts("b")
    assert caplog.text.count("Too many open files; the keys known so far stay") == 1


@pytest.mark.parametrize("broken", [None, "", "# none\n"])
def test_a_broken_file_keeps_the_old_keys(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ring = Ring(tmp_path / "keys", "a\n")
    if broken is None:
        ring.path.unlink()
    else:
        ring.write(broken)
    for _ in range(3):
        assert ring.accepts("a", after_s=2.0)
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    ring.write("b\n")
    assert ring.accepts("b", after_s=2.0)
    assert not ring.accepts("a")


def test_a_file_that_is_broken_at_the_start_opens_nothing(tmp_path: Path) -> None:
    ring = Ring(tmp_path / "keys", None)
    assert not ring.accepts("")
    assert ring.accepts("fixed")
    ring.write("a\n")
    assert ring.accepts("a", after_s=2.0)


def test_keys_and_digests_appear_in_no_log(
    model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = tmp_path / "keys"
    path.write_text("file-key\n")
    server = serve(model_dir, api_key_file=str(path))
    assert not reached(server, "GET", "/info", "wrong-key")
    assert reached(server, "GET", "/info", "file-key")
    for word in ("file-key", "wrong-key", *digests(["file-key", "wrong-key"])):
        assert word not in caplog.text
