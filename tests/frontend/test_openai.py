"""The OpenAI routes: answers, chunks, lenience, and what is refused by name."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Accepted, Ended, Rejected, Submit
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


def chat(server: Server, **fields: Any) -> Any:
    return server.post(CHAT, {"messages": MESSAGES, **fields})


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


def test_resolved_sampling(server: Server) -> None:
    def sampling(**fields: Any) -> Any:
        assert chat(server, **fields).status_code == 200
        return server.pipeline.of(Submit)[-1].spec.sampling

    assert sampling().do_sample
    assert sampling(temperature=1.0).do_sample
    greedy = sampling(temperature=0, top_p=0.5, top_k=3, seed=4)
    assert (greedy.do_sample, greedy.top_p, greedy.top_k, greedy.seed) == (False, 1.0, 0, 0)
    assert sampling(seed=-1).seed == 2**64 - 1
    drawn = sampling(temperature=0.5, top_p=1, top_k=-1, seed=11)
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.seed) == (0.5, 1.0, 0, 11)
    penalties = sampling(frequency_penalty=0.5, presence_penalty=-1, repetition_penalty=1.1)
    assert penalties.output_frequency_penalty == 0.5
    assert penalties.output_presence_penalty == -1.0
    assert penalties.repetition_penalty == 1.1
    assert penalties.frequency_penalty == 0.0
    assert sampling(logit_bias={"3": -100, "4": 5}).logit_bias == {3: -100.0, 4: 5.0}
    assert sampling(min_tokens=2, max_tokens=5).min_new_tokens == 2
    assert sampling(min_p=0.25).min_p == 0.25
    assert sampling(min_p=0.25, temperature=0).min_p == 0.0


def test_token_limits(server: Server) -> None:
    def limit(**fields: Any) -> int:
        assert chat(server, **fields).status_code == 200
        return server.pipeline.of(Submit)[-1].spec.max_new_tokens

    length = limit() and len(server.pipeline.of(Submit)[-1].spec.prompt_ids)
    assert limit() == 2048 - length
    assert limit(max_tokens=7) == 7
    assert limit(max_completion_tokens=8) == 8
    assert limit(max_tokens=7, max_completion_tokens=8) == 8


def test_ignore_eos(server: Server) -> None:
    assert chat(server, ignore_eos=True).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.stop_token_ids == []


def test_stop_token_ids(server: Server) -> None:
    own = server.services.tokenizer.stop_token_ids
    assert chat(server, stop_token_ids=[3, 7]).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.stop_token_ids == [3, 7, *own]
    assert chat(server, stop_token_ids=[3], ignore_eos=True).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.stop_token_ids == [3]
    answer = chat(server, stop_token_ids=[3], response_format={"type": "json_object"})
    assert answer.status_code == 422
    assert "`stop_token_ids` cannot be combined" in answer.json["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_ends_the_text_is_part_of_it_if_that_is_asked_for(
    server: Server, stream: bool
) -> None:
    def text(**fields: Any) -> str:
        answer = chat(server, stream=stream, **fields)
        assert answer.status_code == 200
        if not stream:
            return answer.json["choices"][0]["message"]["content"]
        found = events(answer.content)[:-1]
        return "".join(event["choices"][0]["delta"].get("content") or "" for event in found)

    (world,) = server.services.tokenizer.encode(" world", add_special_tokens=False)
    assert text() == " hello world"
    assert text(stop=[" wo"]) == " hello"
    assert text(stop=[" wo"], include_stop_str_in_output=True) == " hello wo"
    assert text(stop_token_ids=[world]) == " hello"
    assert text(stop_token_ids=[world], include_stop_str_in_output=True) == " hello world"
    assert text(skip_special_tokens=False) == " hello world"
    both = {"skip_special_tokens": False, "include_stop_str_in_output": True}
    assert text(**both) == " hello world</s>"


def test_special_tokens_around_the_prompt(server: Server) -> None:
    def prompt(path: str, **fields: Any) -> list[int]:
        body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], **fields}
        assert server.post(path, body).status_code == 200
        return server.pipeline.of(Submit)[-1].spec.prompt_ids

    tokenizer = server.services.tokenizer
    for path, usual in (("/v1/completions", True), ("/v1/chat/completions", False)):
        assert prompt(path) == prompt(path, add_special_tokens=usual)
        with_them, without = (prompt(path, add_special_tokens=added) for added in (True, False))
        assert len(with_them) > len(without)
        assert with_them[-len(without) :] == without or with_them[: len(without)] == without
        assert tokenizer.is_special((set(with_them) - set(without) or set(with_them)).pop())


FORMS = {
    "grammar": ({"type": "regex", "value": "a+"}, "regex: a+"),
    "response_format": ({"type": "regex", "value": "a+"}, "regex: a+"),
    "structured_outputs": ({"choice": ["a", "b"]}, 'lark: start: "a" | "b"'),
    "guided_json": ({"type": "null"}, 'json_schema: {"type":"null"}'),
    "guided_regex": ("a+", "regex: a+"),
    "guided_choice": (["a"], 'lark: start: "a"'),
    "guided_grammar": ('root ::= "a"', 'gbnf: root ::= "a"'),
}


@pytest.mark.parametrize("name", list(FORMS))
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
    ],
)
def test_a_grammar_by_each_of_its_names(
    server: Server, name: str, path: str, body: dict[str, Any]
) -> None:
    value, grammar = FORMS[name]
    assert server.post(path, {**body, name: value}).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.grammar == grammar
    other = next(known for known in FORMS if known != name)
    answer = server.post(path, {**body, name: value, other: FORMS[other][0]})
    assert answer.status_code == 422
    assert "are two names of the same" in answer.json["error"]["message"]


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


def test_no_template(model_dir: Path) -> None:
    server = serve(model_dir, template=False)
    for stream in (False, True):
        answer = chat(server, stream=stream)
        assert answer.status_code == 422
        assert answer.json["error_type"] == "template_error"
        assert answer.json["error"]["message"].startswith("Template error: ")


HARMLESS = {
    "n": 1, "user": "me", "parallel_tool_calls": True, "service_tier": "auto", "metadata": {},
    "store": False, "echo": False, "best_of": 1, "tools": [], "tool_choice": None,
    "response_format": {"type": "text"}, "top_p": 1, "logit_bias": {}, "stop": None,
    "stream_options": None, "logprobs": None, "tool_prompt": "x", "seed": None,
    "repetition_penalty": None, "frequency_penalty": None, "presence_penalty": 0,
    "stream": None, "max_tokens": None, "modalities": ["text"], "functions": None,
    "min_p": 0, "stop_token_ids": [], "structured_outputs": None, "guided_grammar": None,
}  # fmt: skip


def test_harmless_fields_are_accepted(server: Server) -> None:
    assert chat(server, **HARMLESS).status_code == 200
    for name, value in HARMLESS.items():
        assert chat(server, **{name: value}).status_code == 200, name


REFUSED = [
    ("n", 0),
    ("n", 9),
    ("priority", 1001),
    ("cache_salt", ""),
    ("cache_salt", "s" * 257),
    ("functions", [{}]),
    ("tools", [{"type": "function", "function": {}}]),
    ("response_format", {"type": "json_schema"}),
    ("response_format", {"type": "xml"}),
    ("audio", {}),
    ("min_p", 1.5),
    ("min_p", -0.1),
    ("min_p", "x"),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [99999]),
    ("stop_token_ids", [1] * 129),
    ("stop_token_ids", 3),
    ("guided_json", []),
    ("guided_json", "{"),
    ("guided_regex", ["a"]),
    ("guided_choice", []),
    ("guided_choice", ["yes", ""]),
    ("guided_choice", "yes"),
    ("guided_grammar", ["root"]),
    ("structured_outputs", {}),
    ("structured_outputs", []),
    ("structured_outputs", {"json": {}, "regex": "a"}),
    ("structured_outputs", {"json": []}),
    ("structured_outputs", {"choice": [3]}),
    ("structured_outputs", {"structural_tag": "a"}),
    ("structured_outputs", {"regex": "a", "whitespace_pattern": " "}),
    ("temperature", -1),
    ("top_p", 0),
    ("top_p", 1.5),
    ("top_k", -2),
    ("frequency_penalty", 3),
    ("presence_penalty", -3),
    ("repetition_penalty", 0),
    ("max_tokens", 0),
    ("max_completion_tokens", 0),
    ("stop", ["a"] * 5),
    ("top_logprobs", 9),
    ("min_tokens", 5000),
    ("logit_bias", [1.0]),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"99999": 1}),
    ("logit_bias", {"1": 101}),
    ("max_tokens", 20.0),
    ("max_tokens", "3"),
    ("seed", -(2**63) - 1),
    ("stop", 3),
    ("logprobs", 1),
    ("messages", []),
    ("messages", "x"),
    ("messages", [{"content": "x"}]),
    ("messages", [{"role": "user"}]),
    ("messages", [{"role": "user", "content": None}]),
    ("messages", [{"role": "user", "content": 3}]),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
    ("chat_template_kwargs", {"messages": []}),
    ("chat_template", "x"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refused_fields_are_named(server: Server, name: str, value: Any, stream: bool) -> None:
    answer = chat(server, **{name: value, "stream": stream})
    assert answer.status_code == 422
    body = answer.json
    assert list(body) == ["error", "error_type"]
    assert body["error_type"] == "validation"
    assert name.removesuffix("_completion_tokens") in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "validation"
    assert body["error"]["http_status_code"] == 422
    assert not server.pipeline.of(Submit)


def test_tools_that_are_not_to_be_used(server: Server) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert chat(server, tools=tools, tool_choice="none").status_code == 200


def test_overload_is_a_status_also_on_streams(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=0.2)
    ]
    for stream in (False, True):
        answer = chat(server, stream=stream)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json["error"]["message"] == "Model is overloaded"
        assert answer.json["error"]["type"] == "rate_limit_error"
        assert answer.json["error_type"] == "overloaded"


def test_failure_in_a_stream_is_an_event(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Accepted(id=submit.spec.id, attempt=0),
    ]
    client_body = {"messages": MESSAGES, "stream": True}

    def fail(submit: Submit) -> list[Any]:
        import gevent

        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        gevent.spawn_later(0.01, server.pipeline.link.receive, ended)
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = fail
    usage = server.post(CHAT, {**client_body, "stream_options": {"include_usage": True}})
    assert [next(iter(event)) for event in events(usage.content)[:-1]] == ["error", "id"]
    counts = events(usage.content)[1]["usage"]
    assert counts["completion_tokens"] == 0
    assert counts["prompt_tokens"] > 0
    answer = server.post(CHAT, client_body)
    assert answer.status_code == 200
    assert answer.content.startswith(b'data: {"error":{"message":"Request failed')
    event, done = events(answer.content)
    assert event["error"]["http_status_code"] == 424
    assert event["error_type"] == "generation"
    assert done == "[DONE]"
    server.pipeline.check_released(success=False)


def test_models(server: Server) -> None:
    listed = server.get("/v1/models").json
    model = {"id": "org/model", "object": "model", "created": 0, "owned_by": "org/model"}
    assert listed == {"object": "list", "data": [model]}
    assert server.get("/v1/models/org/model").json == model
    assert server.get("/v1/models/other").status_code == 404
