"""``/v1/completions``: prompts, lists of them, token ids, chunks."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Accepted, Ended, Submit
from tests.frontend.fakes import Server, events, serve

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def prompt(server: Server) -> str:
    """The text of the latest prompt."""
    spec = server.pipeline.of(Submit)[-1].spec
    return server.services.tokenizer.decode(spec.prompt_ids, skip_special_tokens=False)


def test_completion(server: Server) -> None:
    answer = server.post(COMPLETIONS, {"prompt": "hello", "temperature": 0})
    body = answer.json
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {
            "index": 0,
            "text": " hello world",
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert prompt(server) == "<s>hello"
    assert "x-compute-time" not in answer.headers
    assert answer.headers["x-generated-tokens"] == "3"


def test_completion_of_several_prompts(server: Server) -> None:
    answer = server.post(COMPLETIONS, {"prompt": ["a", "b", "hello", "d"], "max_tokens": 1})
    body = answer.json
    assert [c["index"] for c in body["choices"]] == [0, 1, 2, 3]
    assert {c["text"] for c in body["choices"]} == {" hello"}
    assert body["usage"]["prompt_tokens"] == 8
    assert body["usage"]["completion_tokens"] == 4
    assert answer.headers["x-compute-characters"] == "8"
    assert answer.headers["x-queue-time"] == "1000"
    assert answer.headers["x-prompt-tokens"] == "8"
    server.pipeline.check_released(success=True)


def test_too_many_prompts_and_suffix(server: Server) -> None:
    answer = server.post(COMPLETIONS, {"prompt": ["a"] * 5})
    assert answer.status_code == 422
    assert answer.json["error_type"] == "batch size exceeded"
    answer = server.post(COMPLETIONS, {"prompt": ["a"] * 5, "suffix": "x"})
    assert answer.status_code == 422
    assert answer.json["error_type"] == "suffix not supported"


def test_completion_of_token_ids(server: Server) -> None:
    ids = server.services.tokenizer.encode("hello", add_special_tokens=True)
    for given, count in ((ids, 1), ([ids, ids], 2)):
        answer = server.post(COMPLETIONS, {"prompt": given})
        assert len(answer.json["choices"]) == count
        assert prompt(server) == "<s>hello"
    for bad in ([10**6], [-1], [[]], [True]):
        assert server.post(COMPLETIONS, {"prompt": bad}).status_code == 422


@pytest.mark.parametrize(
    "given", [None, 3, {}, [], "", [""], [["x"]], [1.5], ["a", 3], [None], {"a": 1}]
)
def test_bad_prompts(server: Server, given: Any) -> None:
    answer = server.post(COMPLETIONS, {"prompt": given})
    assert answer.status_code == 422
    assert "prompt" in answer.json["error"]["message"]


def test_completion_stream(server: Server) -> None:
    body = {"prompt": ["a", "b"], "stream": True, "max_tokens": 2}
    *chunks, done = events(server.post(COMPLETIONS, body).content)
    assert done == "[DONE]"
    for index in (0, 1):
        own = [c for c in chunks if c["choices"][0]["index"] == index]
        assert [c["choices"][0]["text"] for c in own] == [" hello", " world"]
        assert [c["choices"][0]["finish_reason"] for c in own] == [None, "length"]
        assert [c["usage"] for c in own] == [None, None]
    body["stream_options"] = {"include_usage": True}
    *chunks, usage, _ = events(server.post(COMPLETIONS, body).content)
    assert all(c["usage"] is None for c in chunks)
    assert usage["usage"]["completion_tokens"] == 4


def test_special_tokens_are_not_shown_in_completions(model_dir: Path) -> None:
    server = serve(model_dir, "a<|call|>b")
    body = {"prompt": "a", "stream": True}
    *chunks, _ = events(server.post(COMPLETIONS, body).content)
    assert "".join(c["choices"][0]["text"] for c in chunks) == "ab"


def test_one_failing_prompt_leaves_the_others(server: Server) -> None:
    def fail(submit: Submit) -> list[Any] | None:
        if submit.spec.id & 0xFF != 1:
            return None
        import gevent

        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        gevent.spawn_later(0.001, server.pipeline.link.receive, ended)
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = fail
    server.pipeline.pause_s = 0.005
    *chunks, done = events(server.post(COMPLETIONS, {"prompt": ["a", "b"], "stream": True}).content)
    errors = [c for c in chunks if "error" in c]
    assert len(errors) == 1
    texts = [c["choices"][0]["text"] for c in chunks if "choices" in c]
    assert "".join(texts) == " hello world"
    assert done == "[DONE]"
    server.pipeline.check_released()
