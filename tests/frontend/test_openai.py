"""The OpenAI routes: answers, chunks, and the conversation."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve
from tests.frontend.openai import MESSAGES, chat, prompt

COMPLETIONS = "/v1/completions"


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_chat(server: Server) -> None:
    answer = chat(server, model="tgi")
    assert answer.status_code == 200
    body = answer.json
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["created"] == 1_700_000_000
    assert body["model"] == "org/model"
    assert body["system_fingerprint"] == "1.2.3-native"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " hello world"},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    tokens = len(server.pipeline.of(Submit)[0].spec.prompt_ids)
    assert body["usage"] == {
        "prompt_tokens": tokens,
        "completion_tokens": 3,
        "total_tokens": tokens + 3,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert prompt(server) == "<|user|>hello\n<|assistant|>"
    assert answer.headers["x-compute-characters"] == str(len(prompt(server)))
    assert "x-compute-time" in answer.headers
    assert chat(server).json["id"] != body["id"]
    server.pipeline.check_released(success=True)


@pytest.mark.parametrize(
    ("model", "echoed"),
    [(None, "org/model"), ("tgi", "org/model"), ("dummy", "dummy"), ("gpt-4", "gpt-4")],
)
def test_any_model_name_is_accepted(server: Server, model: Any, echoed: str) -> None:
    assert chat(server, model=model).json["model"] == echoed
    answer = server.post(COMPLETIONS, {"prompt": "a", "model": model})
    assert answer.json["model"] == "org/model"


def test_chat_stream(server: Server) -> None:
    answer = chat(server, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-compute-type"] == "cpu"
    *chunks, usage, done = events(answer.content)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert [c["choices"][0]["delta"] for c in chunks] == [
        {"role": "assistant", "content": " hello"},
        {"content": " world"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "stop"]
    assert all(c["usage"] is None for c in chunks)
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    assert answer.content.endswith(b"\n\ndata: [DONE]\n\n")
    server.pipeline.check_released(success=True)


def test_chat_stream_without_usage(server: Server) -> None:
    found = events(chat(server, stream=True, stream_options=None).content)
    assert all(c["choices"] for c in found[:-1])
    assert "usage" in found[0]


def test_chat_stops(model_dir: Path) -> None:
    server = serve(model_dir, "ab stop here")
    for stop in ("stop", ["stop"], ["xx", "stop"]):
        (choice,) = chat(server, stop=stop).json["choices"]
        assert choice["message"]["content"] == "ab "
        assert choice["finish_reason"] == "stop"
        found = events(chat(server, stop=stop, stream=True).content)[:-1]
        deltas = [c["choices"][0]["delta"].get("content", "") for c in found]
        assert "".join(deltas) == "ab "
        assert found[-1]["choices"][0]["finish_reason"] == "stop"
    (choice,) = chat(server, max_tokens=2).json["choices"]
    assert choice["finish_reason"] == "length"
    server.pipeline.check_released(success=True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_of_the_clients_has_ended_it(server: Server, path: str) -> None:
    """As vLLM tells it; an end of the model's own, or of the room, has no such reason."""
    tokenizer = server.services.tokenizer
    (world,) = tokenizer.encode(" world", add_special_tokens=False)
    prompt = {"messages": MESSAGES, "prompt": "x", "n": 2}
    for fields, wanted in (
        ({"stop": ["xx", " wo"]}, " wo"),
        ({"stop_token_ids": [world]}, world),
        ({"stop_token_ids": tokenizer.stop_token_ids}, None),
        ({"stop": ["xx"]}, None),
        ({"stop": [" wo"], "max_tokens": 1}, None),
    ):
        body = {**prompt, **fields}
        choices = server.post(path, body).json["choices"]
        assert [choice["stop_reason"] for choice in choices] == [wanted] * 2
        chunks = events(server.post(path, {**body, "stream": True}).content)[:-1]
        for index in (0, 1):
            *rest, last = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
            assert last["stop_reason"] == wanted
            assert last["finish_reason"]
            assert not any("stop_reason" in choice for choice in rest)


def test_chat_holds_back_what_may_become_a_stop_string(model_dir: Path) -> None:
    server = serve(model_dir, "abcd")
    found = events(chat(server, stop=["bx", "cq"], stream=True).content)[:-1]
    assert [c["choices"][0]["delta"] for c in found] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {"content": "cd"},
        {},
    ]


def test_chat_logprobs(server: Server) -> None:
    (choice,) = chat(server, logprobs=True, top_logprobs=2).json["choices"]
    content = choice["logprobs"]["content"]
    assert [c["token"] for c in content] == [" hello", " world", "</s>"]
    assert content[0]["bytes"] == list(b" hello")
    assert content[0]["logprob"] == -0.5
    assert [t["logprob"] for t in content[0]["top_logprobs"]] == [-0.5, -1.5]
    found = events(chat(server, logprobs=True, stream=True).content)[:-1]
    assert [len(c["choices"][0]["logprobs"]["content"]) for c in found] == [1, 1, 1]
    assert found[0]["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert chat(server, top_logprobs=2).json["choices"][0]["logprobs"] is None


def test_messages(server: Server) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert chat(server, messages=[{"role": "user", "content": parts}]).status_code == 200
    assert prompt(server) == "<|user|>hello\n<|assistant|>"
    conversation = [
        {"role": "user", "content": "hello", "name": None, "tool_calls": None},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "0", "content": "here"},
    ]
    assert chat(server, messages=conversation).status_code == 200
    written = '{"name": "f", "arguments": {}}'
    assert prompt(server) == f"<|user|>hello\n<|assistant|>{written}\n<|tool|>here\n<|assistant|>"


def test_an_assistant_message_at_the_end_is_continued(server: Server) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "Paris"}]
    assert chat(server, messages=messages).status_code == 200
    assert prompt(server) == "<|user|>hello\n<|assistant|>Paris"


def test_reasoning_that_a_begun_message_has_opened_goes_on(thinking_dir: Path) -> None:
    server = serve(thinking_dir, " test</think>\n\nParis")
    form = {"type": "json_object"}
    for begun, reasons in (("<think>\nhello", True), ("<think>hello</think>\n", False)):
        messages = [*MESSAGES, {"role": "assistant", "content": begun}]
        (choice,) = chat(server, messages=messages).json["choices"]
        said = choice["message"]
        assert said.get("reasoning_content") == (" test" if reasons else None)
        assert said["content"] == ("Paris" if reasons else " test</think>\n\nParis")
        assert chat(server, messages=messages, response_format=form).status_code == 200
        assert (server.services.grammars.checks[-1].kind == "framed") == reasons


def test_tools_that_are_not_to_be_used(server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert chat(server, tools=tools, tool_choice="none").status_code == 200


def test_models(server: Server) -> None:
    listed = server.get("/v1/models").json
    model = {"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}
    assert listed == {"object": "list", "data": [model]}
    assert server.get("/v1/models/org/model").json == model
    assert server.get("/v1/models/other").status_code == 404
