"""A small model hub on localhost: the routes that a download needs, and the ways they fail."""

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.hub_cache import Hub

SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """``files`` of one commit, which the branch ``main`` names."""

    files: dict[str, bytes]
    gated: bool = False
    pipeline_tag: str | None = "text-generation"
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes to claim instead of the real ones."""


@dataclass
class HubState:
    """What the hub has, how it misbehaves, and what it was asked."""

    repositories: dict[str, Repository]
    token: str = "good"
    broken: bool = False
    """Every answer is 503."""
    cut_after: int | None = None
    """Connections end after so many bytes of a body."""
    cuts: int = 10**9
    """How often."""
    damage: int = 0
    """So many bodies of ``cut_file`` have another first byte."""
    cut_file: str = ""
    """Only bodies of paths with this end are cut, or damaged."""
    ranges: bool = True
    hold: threading.Event | None = None
    """Set: a cut connection is held open until this is set."""
    held: threading.Event = field(default_factory=threading.Event)
    elsewhere: str = ""
    """Bodies are redirected to this other server."""
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """(method, path, Range, Authorization)"""

    def gets(self, name: str) -> list[str | None]:
        """The Range headers of all GETs of a file."""
        return [asked for method, path, asked, _ in self.asked if method == "GET" and name in path]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HubState

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urllib.parse.unquote(self.path.split("?")[0])
        token = self.headers.get("Authorization")
        self.state.asked.append((self.command, path, self.headers.get("Range"), token))
        if self.state.broken:
            self._send(503, b"")
            return
        if path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
            return
        for name, repository in self.state.repositories.items():
            prefix = f"/{name}/resolve/"
            if path.startswith(prefix):
                revision, _, file = path.removeprefix(prefix).partition("/")
                self._file(repository, revision, file)
                return
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _info(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repository = self.state.repositories.get(name)
        if repository is None:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("", "main", SHA):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        info = {
            "id": name,
            "sha": SHA,
            "pipeline_tag": repository.pipeline_tag,
            "siblings": [
                {"rfilename": file, "size": len(data)} for file, data in repository.files.items()
            ],
        }
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, revision: str, file: str) -> None:
        if repository.gated and self.headers.get("Authorization") != f"Bearer {self.state.token}":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        data = repository.files.get(file)
        if data is None or revision != SHA:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": SHA}
        if file in repository.sizes:
            headers["X-Linked-Size"] = str(repository.sizes[file])
        if self.state.elsewhere and self.command == "GET":
            self._send(302, b"", {**headers, "Location": self.state.elsewhere + self.path})
            return
        status, asked = 200, self.headers.get("Range")
        if asked and self.state.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[start:]
        self._send(status, data, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.state.damage > 0 and self.path.endswith(self.state.cut_file):
            self.state.damage -= 1
            body = bytes([body[0] ^ 1]) + body[1:]
        cut = self.state.cut_after
        chosen = self.path.endswith(self.state.cut_file)
        if cut is not None and chosen and len(body) > cut and self.state.cuts > 0:
            self.state.cuts -= 1
            self.wfile.write(body[:cut])
            self.wfile.flush()
            self.state.held.set()
            if self.state.hold is not None:
                self.state.hold.wait(30)
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def serving(state: HubState) -> Iterator[str]:
    """The hub's address."""
    handler = type("Handler", (_Handler,), {"state": state})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def hub_at(url: str, tmp_path: Path, **kwargs) -> Hub:
    """The one at ``url``, as the launcher knows it, with its cache below ``tmp_path``."""
    said: list[str] = kwargs.pop("said", [])
    return Hub(tmp_path / "cache", said.append, url, pause_s=0.0, **kwargs)
