"""The native routes: answers, events, headers, and what fails."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import (
    Cancel,
    Delivered,
    Ended,
    Rejected,
    SequenceTokens,
    Submit,
    Tally,
    Tokens,
    WorkerFinish,
)
from tests.frontend.fakes import Server, events, serve

QUESTION = "hello wörld"


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_generate_without_details(server: Server) -> None:
    answer = server.post("/generate", {"inputs": QUESTION, "parameters": {}, "unknown": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {"generated_text": " hello world"}
    server.pipeline.check_released(success=True)


def test_details(server: Server) -> None:
    answer = server.post("/generate", {"inputs": QUESTION, "parameters": {"details": True}})
    details = answer.json["details"]
    assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert details["finish_reason"] == "eos_token"
    assert details["generated_tokens"] == 3
    assert details["seed"] is None
    assert details["prefill"] == []
    assert [t["text"] for t in details["tokens"]] == [" hello", " world", "</s>"]
    assert [t["special"] for t in details["tokens"]] == [False, False, True]
    assert details["tokens"][0]["logprob"] == -0.5
    assert list(details["tokens"][0]) == ["id", "text", "logprob", "special"]


def test_top_tokens(server: Server) -> None:
    answer = server.post(
        "/generate", {"inputs": "a", "parameters": {"details": True, "top_n_tokens": 2}}
    )
    details = answer.json["details"]
    assert len(details["top_tokens"]) == 3
    first = details["top_tokens"][0]
    assert [t["id"] for t in first] == [details["tokens"][0]["id"], details["tokens"][0]["id"] + 1]
    assert set(first[0]) == {"id", "text", "logprob", "special"}


def test_prefill_needs_the_server_flag(model_dir: Path) -> None:
    body = {"inputs": "ab", "parameters": {"decoder_input_details": True}}
    closed = serve(model_dir).post("/generate", body)
    assert closed.json["details"]["prefill"] == []
    server = serve(model_dir, enable_prefill_logprobs=True)
    opened = server.post("/generate", body).json["details"]["prefill"]
    assert [t["text"] for t in opened] == ["<s>", "a", "b"]
    assert [t["logprob"] for t in opened] == [None, -1.0, -1.0]
    assert server.pipeline.of(Submit)[0].spec.prefill_logprobs


def test_best_of(server: Server) -> None:
    body = {"inputs": "a", "parameters": {"best_of": 2, "do_sample": True, "details": True}}
    details = server.post("/generate", body).json["details"]
    assert len(details["best_of_sequences"]) == 1
    assert next(iter(details["best_of_sequences"][0])) == "generated_text"
    seeds = {details["seed"], details["best_of_sequences"][0]["seed"]}
    assert len(seeds) == 2
    assert None not in seeds
    server.pipeline.check_released(success=True)


def test_headers_of_an_answer(server: Server) -> None:
    headers = server.post("/generate", {"inputs": QUESTION, "parameters": {}}).headers
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == str(len(QUESTION))
    assert headers["x-prompt-tokens"] == "9"
    assert headers["x-generated-tokens"] == "3"
    assert headers["x-queue-time"] == "250"
    for name in ("total", "validation", "inference"):
        assert headers[f"x-{name}-time"] == "0"
    assert headers["x-time-per-token"] == "0"
    assert float(headers["x-compute-time"]) == 0.0
    assert headers["x-request-id"]


def test_stream(server: Server) -> None:
    answer = server.post("/generate_stream", {"inputs": QUESTION, "parameters": {"details": True}})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-compute-type"] == "cpu"
    assert "x-total-time" not in answer.headers
    found = events(answer.content)
    assert [e["index"] for e in found] == [1, 2, 3]
    assert list(found[0]) == ["index", "token", "generated_text", "details"]
    assert [e["generated_text"] for e in found] == [None, None, " hello world"]
    assert found[0]["details"] is None
    assert found[-1]["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 3,
        "seed": None,
        "input_length": 9,
    }
    server.pipeline.check_released(success=True)


def test_stream_bytes(server: Server) -> None:
    answer = server.post("/generate_stream", {"inputs": "a", "parameters": {"max_new_tokens": 1}})
    token = server.pipeline.reply(None)[0]  # type: ignore[arg-type]
    assert answer.content == (
        b'data: {"index":1,"token":{"id":%d,"text":" hello","logprob":-0.5,"special":false},'
        b'"generated_text":" hello","details":null}\n\n' % token
    )


def test_tokens_that_arrive_together_are_written_together(model_dir: Path) -> None:
    server = serve(model_dir)
    server.pipeline.per_message = 10
    answer = server.client.simulate_post("/generate_stream", json={"inputs": "a", "parameters": {}})
    assert len(events(answer.content)) == 3


def test_root_answers_a_list(server: Server) -> None:
    body = {"inputs": QUESTION, "parameters": {}}
    assert server.post("/", body).json == [{"generated_text": QUESTION + " hello world"}]
    answer = server.post("/", {**body, "stream": True})
    assert events(answer.content)[-1]["generated_text"] == QUESTION + " hello world"


@pytest.mark.parametrize(
    ("tag", "asked", "full"),
    [
        (None, None, True),
        ("text-generation", None, True),
        ("text2text-generation", None, False),
        ("text-generation", False, False),
        ("other", True, True),
    ],
)
def test_full_text_by_default(model_dir: Path, tag: Any, asked: Any, full: bool) -> None:
    server = serve(model_dir, model_pipeline_tag=tag)
    body = {"inputs": "a", "parameters": {"return_full_text": asked}}
    (answer,) = server.post("/", body).json
    assert answer["generated_text"] == ("a hello world" if full else " hello world")
    plain = server.post("/generate", {"inputs": "a", "parameters": {}}).json
    assert plain["generated_text"] == " hello world"


def test_overload(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=2.1)
    ]
    body = {"inputs": "a", "parameters": {}}
    answer = server.post("/generate", body)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    assert answer.json == {"error": "Model is overloaded", "error_type": "overloaded"}
    streamed = server.post("/generate_stream", body)
    assert streamed.status_code == 200
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.content == (
        b'data: {"error":"Model is overloaded","error_type":"overloaded"}\n\n'
    )
    server.pipeline.check_released(success=False)
    assert not server.pipeline.of(Cancel)


def test_failure_during_generation(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Ended(id=submit.spec.id, attempt=0, reason="failed", message="out of luck")
    ]
    answer = server.post("/generate", {"inputs": "a", "parameters": {}})
    assert answer.status_code == 424
    assert answer.json == {
        "error": "Request failed during generation: out of luck",
        "error_type": "generation",
    }
    server.pipeline.check_released(success=False)


def test_no_scheduler(server: Server) -> None:
    server.pipeline.clock.now += 60  # type: ignore[attr-defined]
    body = {"inputs": "a", "parameters": {}}
    answer = server.post("/generate", body)
    assert answer.status_code == 503
    assert answer.json["error_type"] == "unavailable"
    (event,) = events(server.post("/generate_stream", body).content)
    assert event["error_type"] == "unavailable"


def test_requests_and_failures_are_tallied(server: Server) -> None:
    def tallied() -> Tally:
        server.pipeline.link.flush()
        return server.pipeline.of(Tally)[-1]

    server.post("/generate", {"inputs": ""})
    server.post("/generate_stream", {"inputs": ""})
    server.post("/generate", {"inputs": "a"})
    server.get("/nothing")
    assert tallied() == Tally(requests=3, failures={"validation": 2})
    assert len(server.pipeline.of(Delivered)) == 1
    server.post("/generate", {"inputs": "a", "parameters": {"best_of": 2, "do_sample": True}})
    assert tallied() == Tally(requests=2)
    server.post("/v1/completions", {"prompt": ["a", "b"]})
    assert tallied() == Tally(requests=3)
    server.post("/v1/completions", {"prompt": [], "stream": True})
    assert tallied() == Tally(requests=1, failures={"validation": 1})
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded")
    ]
    server.post("/generate", {"inputs": "a"})
    server.post("/v1/completions", {"prompt": "a", "stream": True})
    assert tallied() == Tally(requests=3, failures={"overloaded": 2})
    server.pipeline.answer = lambda submit: [
        Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
    ]
    server.post("/generate_stream", {"inputs": "a"})
    assert tallied() == Tally(requests=1, failures={"generation": 1})


def test_tokenize(server: Server) -> None:
    text = "hello wörld"
    answer = server.post("/tokenize", {"inputs": text})
    assert answer.status_code == 200
    tokens = answer.json
    assert tokens[0] == {"id": server.services.tokenizer.encode("", add_special_tokens=True)[0],
                         "text": "", "start": 0, "stop": 0}  # fmt: skip
    encoded = text.encode()
    for token in tokens[1:]:
        assert token["text"] == encoded[token["start"] : token["stop"]].decode(errors="replace")
    assert server.post("/tokenize", {"inputs": ""}).status_code == 200
    large = server.post("/tokenize", {"inputs": "hello " * 2000})
    assert len(large.json) > 2000


def test_large_inputs_go_through_the_threads(model_dir: Path) -> None:
    server = serve(model_dir, max_input_tokens=9000, max_total_tokens=10_000)
    body = {"inputs": "hello" + " hello" * 4000, "parameters": {"max_new_tokens": 1}}
    answer = server.post("/generate", body)
    assert answer.status_code == 200
    assert answer.headers["x-prompt-tokens"] == "4002"


@pytest.mark.parametrize("finish", ["eos_token", "length"])
def test_an_end_without_a_token_repeats_the_last_one(model_dir: Path, finish: WorkerFinish) -> None:
    server = serve(model_dir)
    tokenizer = server.pipeline.tokenizer
    first = tokenizer.encode("b", add_special_tokens=False)[0]
    last = tokenizer.stop_token_ids[0] if finish == "eos_token" else first

    def answer(submit: Submit) -> list[Any]:
        items = [
            SequenceTokens(submit.spec.id, 0, 0, [first, last], [-1.0, -2.0]),
            SequenceTokens(submit.spec.id, 0, 2, finish=finish),
        ]
        server.pipeline.link.tokens(Tokens(incarnation=1, step=1, items=items))
        return []

    server.pipeline.answer = answer
    body = {"inputs": "a", "parameters": {"details": True}}
    found = events(server.post("/generate_stream", body).content)
    assert [event["token"]["id"] for event in found] == [first, last, last]
    assert found[-1]["token"]["text"] == ""
    assert found[-1]["token"]["logprob"] == -2.0
    assert found[-1]["generated_text"] == ("b" if finish == "eos_token" else "bb")
    assert found[-1]["details"]["generated_tokens"] == 2
    details = server.post("/generate", body).json["details"]
    assert details["finish_reason"] == finish
    assert [token["id"] for token in details["tokens"]] == [first, last]
    assert details["generated_tokens"] == 2
    for path, chat in (
        ("/v1/completions", {"prompt": "a"}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "logprobs": True},
        ),
    ):
        body = {**chat, "stream": True, "stream_options": {"include_usage": True}}
        *_, end, usage, _ = events(server.post(path, body).content)
        assert end["choices"][0]["finish_reason"] == ("length" if finish == "length" else "stop")
        assert end["choices"][0]["logprobs"] is None
        assert usage["usage"]["completion_tokens"] == 2
