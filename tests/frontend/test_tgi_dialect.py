"""Chat and completions exactly as TGI answers them."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir, messages_api_dialect="tgi")


def chat(server: Server, **fields: Any) -> Any:
    return server.post(CHAT, {"messages": MESSAGES, **fields})


def test_chat(server: Server) -> None:
    body = chat(server, model="tgi").json
    assert body["id"] == ""
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": " hello world"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert set(body["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


def test_chat_stream_repeats_the_role(server: Server) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage, done = events(chat(server, **fields).content)
    assert done == "[DONE]"
    assert [c["choices"][0]["delta"] for c in chunks] == [
        {"role": "assistant", "content": text, "tool_calls": None}
        for text in (" hello", " world", "")
    ]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "stop"]
    assert {c["id"] for c in chunks} == {""}
    assert all("usage" in c and c["usage"] is None for c in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3


def test_logprobs_have_no_bytes(server: Server) -> None:
    (choice,) = chat(server, logprobs=True, top_logprobs=1).json["choices"]
    assert [set(item) for item in choice["logprobs"]["content"]] == [
        {"token", "logprob", "top_logprobs"}
    ] * 3


def test_stop_strings_stay_and_are_the_reason(model_dir: Path) -> None:
    server = serve(model_dir, "ab stop here", messages_api_dialect="tgi")
    (choice,) = chat(server, stop=["stop"]).json["choices"]
    assert choice["message"]["content"] == "ab stop"
    assert choice["finish_reason"] == "stop_sequence"


def test_penalties_are_tgis(server: Server) -> None:
    assert chat(server, presence_penalty=0.5, frequency_penalty=0.25).status_code == 200
    sampling = server.pipeline.of(Submit)[0].spec.sampling
    assert sampling.repetition_penalty == 2.5
    assert sampling.frequency_penalty == 0.25
    assert sampling.output_frequency_penalty == 0.0
    assert sampling.output_presence_penalty == 0.0
    answer = chat(server, presence_penalty=-2.0)
    assert answer.status_code == 422
    assert answer.json["error_type"] == "validation"


def test_errors_are_tgis(server: Server) -> None:
    form = {"type": "json_object"}
    answer = chat(server, tools=[], response_format=form)
    assert answer.status_code == 422
    assert answer.json == {
        "error": "Tool error: Grammar and tools are mutually exclusive",
        "error_type": "tool_error",
    }


def test_log_probabilities_of_text_that_was_held_back_are_streamed_with_it(model_dir: Path) -> None:
    server = serve(model_dir, '{"name": "Paris"} hello', messages_api_dialect="tgi")
    tool = {"type": "function", "function": {"name": "f"}}
    (choice,) = chat(server, tools=[tool], logprobs=True).json["choices"]
    *chunks, _ = events(chat(server, tools=[tool], logprobs=True, stream=True).content)
    told = [entry for c in chunks for entry in c["choices"][0]["logprobs"]["content"]]
    assert told == choice["logprobs"]["content"]
    assert len(told) > len(chunks)


def test_completions(server: Server) -> None:
    body = server.post(COMPLETIONS, {"prompt": "a"}).json
    assert body["id"] == ""
    assert body["choices"][0]["finish_reason"] == "stop"
    answer = server.post(COMPLETIONS, {"prompt": ["a", "b"], "stream": True})
    *chunks, done = events(answer.content)
    assert done == "[DONE]"
    own = [c for c in chunks if c["choices"][0]["index"] == 1]
    assert [c["choices"][0]["text"] for c in own] == [" hello", " world", "</s>"]
    assert [c["choices"][0]["finish_reason"] for c in own] == ["", "", "eos_token"]
    assert ["usage" in c for c in own] == [False, False, True]
    assert own[-1]["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_refused_streams_are_events(server: Server, path: str) -> None:
    body = {"messages": MESSAGES, "prompt": "a", "stream": True, "top_p": 2}
    answer = server.post(path, body)
    assert answer.status_code == 200
    event, done = events(answer.content)
    assert done == "[DONE]"
    assert event["error"]["http_status_code"] == 422
    assert event["error"]["message"].startswith("Input validation error: `top_p`")
    assert server.post(path, {**body, "stream": False}).status_code == 422
    assert server.post(path, {**body, "top_p": "x"}).status_code == 422


def test_template_errors_are_ordinary_answers_also_of_streams(model_dir: Path) -> None:
    server = serve(model_dir, template=False, messages_api_dialect="tgi")
    answer = chat(server, stream=True)
    assert answer.status_code == 422
    assert answer.json["error_type"] == "template_error"


def test_what_tgi_ignores_is_ignored(server: Server) -> None:
    assert len(chat(server, n=9, adapter_id="x", min_p=0.5, logit_bias=[1.0]).json["choices"]) == 1
    fields = {"n": 9, "best_of": 9, "echo": True, "logprobs": 9, "presence_penalty": 9}
    (choice,) = server.post(COMPLETIONS, {"prompt": "a", **fields}).json["choices"]
    assert choice["text"] == " hello world"
    assert choice["logprobs"] is None
    assert server.pipeline.of(Submit)[-1].spec.sampling.repetition_penalty == 1.0
