"""The soak: no request is like another, also not like those of its warm-up."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bench import soak


class FakeConnection:
    """A client that leaves; of what it asks."""

    def __init__(self, asked: list[bytes]) -> None:
        self.sendall = asked.append

    def __enter__(self) -> "FakeConnection":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def recv(self, _: int) -> bytes:
        return b""


def test_no_prompt_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    class FakeClient:
        def __init__(self, port: int, streams: int, request: Callable[[int], bytes]) -> None:
            self._request = request

        def run(self, *, events: int, requests: int) -> None:
            asked.extend(self._request(number) for number in range(requests))

        def close(self) -> None:
            pass

    monkeypatch.setattr(soak, "ROUND", 20)
    monkeypatch.setattr(soak, "Client", FakeClient)
    monkeypatch.setattr(soak, "holds", lambda _: {})
    monkeypatch.setattr(soak.socket, "create_connection", lambda _: FakeConnection(asked))
    pipeline: Any = SimpleNamespace(port=0)
    warm, _ = soak.load(pipeline, 1, 60.0)[-1]
    assert warm == len(asked) == 20 + soak.LEAVERS
    soak.load(pipeline, 60, 60.0, warm)
    prompts = {json.loads(request.partition(b"\r\n\r\n")[2])["inputs"] for request in asked}
    assert len(prompts) == len(asked) == 4 * warm
