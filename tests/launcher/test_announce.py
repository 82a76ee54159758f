"""When the server is called ready, and what is shown then."""

import http.server
import os
import subprocess
import threading
from typing import Any

import msgspec
import pytest

from common.settings import Settings
from launcher.announce import announcement, is_healthy, reachable, wait_until_healthy, write


def test_waits_longer_each_time_but_never_long() -> None:
    answers, pauses = iter([False] * 20 + [True]), []
    wait_until_healthy(lambda: next(answers), pauses.append)
    assert pauses[0] == 0.2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0


def test_health_is_asked_over_http() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert is_healthy("127.0.0.1", server.server_port)
    assert not is_healthy("127.0.0.1", server.server_port)


@pytest.mark.parametrize(
    ("hostname", "asked", "shown"),
    [
        ("0.0.0.0", "127.0.0.1", "localhost"),
        ("::", "::1", "localhost"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("fe80::1", "fe80::1", "[fe80::1]"),
    ],
)
def test_addresses(hostname: str, asked: str, shown: str) -> None:
    assert reachable(hostname) == asked
    settings = Settings(model_id="m", model_dir="/m", hostname=hostname, port=8080)
    text = announcement(settings)
    assert text.count(f"http://{shown}:8080/") == 4
    assert "authorization" not in text
    with_key = announcement(msgspec.structs.replace(settings, api_key_digests=["hush"]))
    assert "authorization" in with_key
    assert "hush" not in with_key
    with_file = announcement(msgspec.structs.replace(settings, api_key_file="/keys"))
    assert "authorization" in with_file


def test_what_is_announced_can_be_pasted() -> None:
    text = announcement(Settings(model_id="m", model_dir="/m", hostname="127.0.0.1", port=8080))
    commands = [part for part in text.split("\n\n") if "curl" in part]
    assert len(commands) == 2
    for command in commands:
        check = subprocess.run(["bash", "-n"], input=command, text=True, check=False)
        assert check.returncode == 0
        assert msgspec.json.decode(command.rsplit("'", 2)[1])


@pytest.mark.parametrize(
    ("changes", "pages"),
    [
        ({}, ["/playground", "/docs"]),
        ({"playground": False}, ["/docs"]),
        ({"api_key_file": "/keys", "playground": False}, []),
        ({"api_key_file": "/keys", "open_routes": ["/playground"]}, ["/playground"]),
    ],
)
def test_only_pages_that_a_browser_sees_are_announced(
    changes: dict[str, Any], pages: list[str]
) -> None:
    settings = msgspec.structs.replace(Settings(model_id="m", model_dir="/m", port=80), **changes)
    text = announcement(settings)
    assert [page for page in ("/playground", "/docs") if f"localhost:80{page}" in text] == pages
    assert ("in a browser" in text) == bool(pages)


def test_a_log_without_room_does_not_keep_it_from_ending_well() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        write(full.fileno(), "ready")
    readable, writable = os.pipe()
    with os.fdopen(readable, "rb") as said:
        write(writable, "ready")
        os.close(writable)
        assert said.read() == b"ready\n"
