"""Anthropic's routes: translation, answers, named events, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import RequestError
from common.messages import Accepted, Cancel, Ended, Rejected, Submit
from frontend.schema import typed
from frontend.schema.messages import CountTokensBody
from frontend.schema.openai import ChatBody
from frontend.translate.messages import prompt_body
from tests.frontend.fakes import TEMPLATE, Server, serve, write_model

MESSAGES = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "of a city", "input_schema": {"type": "object"}}
OTHER = {"name": "clock", "input_schema": {"type": "object"}}
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
THINKING = TEMPLATE + "{% if enable_thinking %}{# <think> </think> #}!{% endif %}"
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://a/b.png"}}


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.fixture(scope="module")
def thinking_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("thinking"), template=THINKING)


def ask(server: Server, **fields: Any) -> Any:
    body = {"model": "some-model", "max_tokens": 100, "messages": MESSAGES, **fields}
    return server.post("/v1/messages", body)


def prompt(server: Server) -> str:
    """The text of the latest prompt."""
    spec = server.pipeline.of(Submit)[-1].spec
    return server.services.tokenizer.decode(spec.prompt_ids, skip_special_tokens=False)


def named(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which is named by its type."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        if block == ":":
            continue
        name, body = block.split("\n")
        document = json.loads(body.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        found.append(document)
    return found


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, put together as a client does, with every rule of the order."""
    start, ping, *rest, delta, stop = events
    assert (start["type"], ping["type"]) == ("message_start", "ping")
    assert (delta["type"], stop["type"]) == ("message_delta", "message_stop")
    message, opened = start["message"], False
    assert message["content"] == []
    assert message["stop_reason"] is None
    for event in rest:
        kind, index = event["type"], event["index"]
        assert opened == (kind != "content_block_start")
        if kind == "content_block_start":
            assert index == len(message["content"])
            message["content"].append({**event["content_block"], "json": ""})
            opened = True
            continue
        assert index == len(message["content"]) - 1
        opened = kind == "content_block_delta"
        if opened:
            block, more = message["content"][-1], dict(event["delta"])
            assert more.pop("type") in DELTAS[block["type"]]
            ((key, text),) = more.items()
            key = "json" if key == "partial_json" else key
            block[key] += text
    assert not opened
    for block in message["content"]:
        arguments = block.pop("json")
        if arguments:
            block["input"] = json.loads(arguments)
    return {**message, **delta["delta"], "usage": delta["usage"]}


DELTAS = {
    "text": ["text_delta"],
    "thinking": ["thinking_delta", "signature_delta"],
    "tool_use": ["input_json_delta"],
}


def both(server: Server, **fields: Any) -> dict[str, Any]:
    """The answer, which is the same whole and as a stream."""
    whole = ask(server, **fields)
    assert whole.status_code == 200, whole.text
    stream = ask(server, stream=True, **fields)
    assert stream.headers["content-type"] == "text/event-stream"
    found = [whole.json, assembled(named(stream.content))]
    for message in found:
        assert message.pop("id").startswith("msg_")
        for block in message["content"]:
            assert block.pop("id", "toolu_").startswith("toolu_")
    assert found[0] == found[1]
    return found[0]


def chat_of(*messages: dict[str, Any], **fields: Any) -> ChatBody:
    return prompt_body(typed({"messages": list(messages), **fields}, CountTokensBody))


# --- answers -------------------------------------------------------------------------------------


def test_whole_and_streamed(server: Server) -> None:
    answer = both(server)
    tokens = len(server.pipeline.of(Submit)[0].spec.prompt_ids)
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "some-model",
        "content": [{"type": "text", "text": " hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 3,
        },
    }
    assert prompt(server) == "<|user|>hello\n<|assistant|>"
    server.pipeline.check_released(success=True)


def test_the_headers_are_those_of_every_generating_route(server: Server) -> None:
    answer = ask(server)
    assert answer.headers["x-generated-tokens"] == "3"
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert ask(server, stream=True).headers["x-compute-characters"] == str(len(prompt(server)))


def test_sampling_is_anthropics(server: Server) -> None:
    ask(server)
    sampling = server.pipeline.of(Submit)[-1].spec.sampling
    assert (sampling.do_sample, sampling.temperature) == (True, 1.0)
    ask(server, temperature=0.5, top_p=0.25, top_k=7)
    sampling = server.pipeline.of(Submit)[-1].spec.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.25, 7)
    ask(server, temperature=0)
    assert not server.pipeline.of(Submit)[-1].spec.sampling.do_sample


def test_max_tokens_ends_it(server: Server) -> None:
    answer = both(server, max_tokens=1)
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"]["output_tokens"] == 1
    assert server.pipeline.of(Submit)[-1].spec.max_new_tokens == 1


def test_the_stop_sequence_is_told(model_dir: Path) -> None:
    server = serve(model_dir, " hello world stop here")
    answer = both(server, stop_sequences=["never", "ld stop", "stop"])
    assert answer["stop_reason"] == "stop_sequence"
    assert answer["stop_sequence"] == "ld stop"
    assert answer["content"] == [{"type": "text", "text": " hello wor"}]
    assert server.pipeline.of(Cancel)


def test_an_empty_answer_has_no_blocks(model_dir: Path) -> None:
    answer = both(serve(model_dir, ""))
    assert answer["content"] == []
    assert answer["stop_reason"] == "end_turn"
    assert both(serve(model_dir, " \n"))["content"] == [{"type": "text", "text": " \n"}]


def test_tool_calls(model_dir: Path) -> None:
    server = serve(model_dir, f"{CALL}\n{CALL}")
    answer = both(server, tools=[TOOL, OTHER], tool_choice={"type": "any"})
    call = {"type": "tool_use", "name": "weather", "input": {"city": "Paris"}}
    assert answer["content"] == [call, call]
    assert answer["stop_reason"] == "tool_use"
    ids = [block["id"] for block in ask(server, tools=[TOOL]).json["content"]]
    assert len(set(ids)) == 2


def test_a_call_that_is_cut_off(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    length = len(server.services.tokenizer.encode(CALL, add_special_tokens=False))
    fields = {"tools": [TOOL], "max_tokens": length - 3}
    answer = ask(server, **fields).json
    assert answer["stop_reason"] == "max_tokens"
    assert answer["content"][0]["input"] == {}
    pieces = [event.get("delta", {}) for event in named(ask(server, stream=True, **fields).content)]
    given = "".join(piece.get("partial_json", "") for piece in pieces)
    assert given
    assert json.dumps({"city": "Paris"}).startswith(given)


def test_thinking(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test</think>hello")
    answer = both(server, thinking={"type": "enabled", "budget_tokens": 1024})
    thinking, text = answer["content"]
    assert thinking["type"] == "thinking"
    assert thinking["thinking"] == "test"
    assert thinking["signature"]
    assert text == {"type": "text", "text": "hello"}
    assert prompt(server).endswith("<|assistant|>!")
    both(server, thinking={"type": "disabled"})
    assert prompt(server).endswith("<|assistant|>")
    omitted = both(server, thinking={"type": "adaptive", "display": "omitted"})
    assert omitted["content"] == [{**thinking, "thinking": ""}, text]


def test_blank_text_between_thinking_and_a_call_is_left_out(thinking_dir: Path) -> None:
    server = serve(thinking_dir, f"<think>test</think>\n\n{CALL}")
    answer = both(server, tools=[TOOL])
    assert [block["type"] for block in answer["content"]] == ["thinking", "tool_use"]


def test_a_format_is_a_grammar(server: Server) -> None:
    schema = {"type": "object", "required": ["a"]}
    answer = ask(server, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert answer.status_code == 200
    assert json.loads(server.services.grammars.checks[0].text) == schema


# --- counting ------------------------------------------------------------------------------------


def test_counting_is_what_the_prompt_has(server: Server) -> None:
    fields = {"system": "test", "tools": [TOOL], "messages": MESSAGES}
    counted = server.post("/v1/messages/count_tokens", {"model": "any", **fields})
    assert counted.json == {"input_tokens": ask(server, **fields).json["usage"]["input_tokens"]}
    assert len(server.pipeline.of(Submit)) == 1
    wrong = server.post("/v1/messages/count_tokens", {"messages": [], "max_tokens": 1})
    assert (wrong.status_code, wrong.json["type"]) == (422, "error")


# --- translation ---------------------------------------------------------------------------------


def test_a_conversation_with_tools() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}
    body = chat_of(
        {"role": "user", "content": [{"type": "text", "text": "go "}, _text("on")]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                _text("so"),
                use,
                {**use, "id": "t2", "name": "clock"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t2", "content": [_text("8"), _text("am")]},
                {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True},
                {**_text("and?"), "cache_control": {"type": "ephemeral"}},
            ],
        },
        system=[_text("be "), _text("good")],
    )
    system, user, assistant, second, first, last = body.messages
    assert (system.role, system.content) == ("system", "be good")
    assert (user.role, user.content) == ("user", "go on")
    assert (assistant.content, assistant.reasoning_content) == ("so", "hm")
    assert assistant.tool_calls is not None
    assert assistant.tool_calls[0] == {
        "id": "t1",
        "type": "function",
        "function": {"name": "weather", "arguments": {"city": "Paris"}},
    }
    assert (second.role, second.content, second.tool_call_id) == ("tool", "8am", "t2")
    assert second.name == "clock"
    assert (first.content, first.tool_call_id, first.name) == ("Error: no", "t1", "weather")
    assert (last.role, last.content) == ("user", "and?")


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_turns_of_one_speaker_are_one() -> None:
    body = chat_of(
        {"role": "user", "content": "a"},
        {"role": "user", "content": [_text("b")]},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": "d"},
    )
    assert [(m.role, m.content) for m in body.messages] == [
        ("user", "a\n\nb"),
        ("assistant", "c\n\nd"),
    ]


def test_instructions_in_the_middle_stay_there() -> None:
    body = chat_of(*MESSAGES, {"role": "system", "content": "short!"}, system="be good")
    assert [m.role for m in body.messages] == ["system", "user", "system"]


def test_a_last_turn_of_the_model_is_continued(server: Server) -> None:
    ask(server, messages=[*MESSAGES, {"role": "assistant", "content": "Paris"}])
    assert prompt(server) == "<|user|>hello\n<|assistant|>Paris"


@pytest.mark.parametrize(
    ("given", "choice", "parallel"),
    [
        (None, None, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any"}, "required", True),
        ({"type": "none"}, "none", True),
        (
            {"type": "tool", "name": "clock"},
            {"type": "function", "function": {"name": "clock"}},
            True,
        ),
    ],
)
def test_tool_choice(given: Any, choice: Any, parallel: bool) -> None:
    body = chat_of(*MESSAGES, tools=[{**TOOL, "type": "custom"}, OTHER], tool_choice=given)
    assert body.tool_choice == choice
    assert body.parallel_tool_calls is parallel
    assert body.tools is not None
    function = body.tools[0].function
    assert (function.name, function.description) == ("weather", "of a city")
    assert function.parameters == {"type": "object"}


def test_thinking_and_effort_are_told_to_the_template() -> None:
    def kwargs(**fields: Any) -> Any:
        return chat_of(*MESSAGES, **fields).chat_template_kwargs

    assert kwargs() is None
    enabled = kwargs(thinking={"type": "enabled", "budget_tokens": 2000})
    assert enabled == {"enable_thinking": True, "thinking": True, "thinking_budget": 2000}
    assert kwargs(thinking={"type": "adaptive"})["enable_thinking"] is True
    assert kwargs(thinking={"type": "disabled"})["enable_thinking"] is False
    assert kwargs(output_config={"effort": "low"}) == {"reasoning_effort": "low"}
    assert kwargs(output_config={"effort": "max"}) == {"reasoning_effort": "high"}


def test_many_turns_are_joined_in_one_go() -> None:
    body = chat_of(*[{"role": "user", "content": "a"}] * 20_000)
    assert body.messages[0].content == "\n\n".join("a" * 20_000)


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "`max_tokens` must be strictly positive"),
        ({"max_tokens": None}, "$.max_tokens"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [], "system": "a"}, "`messages` cannot be empty"),
        ({"temperature": 1.5}, "`temperature` must be >= 0 and <= 1"),
        ({"temperature": -1}, "`temperature` must be >= 0 and <= 1"),
        ({"top_p": 2}, "`top_p`"),
        ({"top_k": -1}, "$.top_k"),
        ({"stop_sequences": ["a"] * 9}, "`stop_sequences` supports up to 4 of them. Given: 9"),
        ({"mcp_servers": [{"url": "http://a"}]}, "`mcp_servers` is not supported"),
        ({"container": "a"}, "`container` is not supported"),
        ({"speed": "fast"}, "`speed` is not supported"),
        ({"context_management": {"edits": [{"type": "clear"}]}}, "`context_management`"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "`tools[0].type` is `web_search_20250305`: only `custom` tools",
        ),
        ({"tools": [TOOL, {"name": "b"}]}, "`tools[1]` needs `input_schema`"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "`tools[0].name` must have"),
        ({"tools": [TOOL, TOOL]}, "two tools of the same name"),
        ({"tool_choice": {"type": "any"}}, "`tool_choice` is `any`, but there are no `tools`"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "needs `name`"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "b"}},
            "`tool_choice` names a tool that is not among `tools`",
        ),
        ({"thinking": {"type": "maybe"}}, "$.thinking.type"),
    ],
)
def test_refused(server: Server, fields: dict[str, Any], words: str) -> None:
    for stream in (False, True):
        answer = ask(server, **fields, stream=stream)
        assert answer.status_code == 422
        assert answer.json["type"] == "error"
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert words in answer.json["error"]["message"]
        assert answer.json["request_id"] == answer.headers["request-id"]
    assert not server.pipeline.of(Submit)


@pytest.mark.parametrize(
    ("role", "block", "words"),
    [
        ("user", IMAGE, "`messages[0].content[1]` is `image`: this model reads only text"),
        ("user", {"type": "document", "source": {}}, "`messages[0].content[1]` is `document`"),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "x"},
            "`messages[0].content[1].tool_use_id` names no `tool_use` block before it",
        ),
        ("user", {"type": "search_result"}, "'search_result' - at `$.messages[0].content[1].type`"),
        ("assistant", {"type": "server_tool_use"}, "$.messages[0].content[1].type"),
        ("assistant", {"type": "tool_use", "id": "a", "name": "b"}, "`input`"),
        ("tool", IMAGE, "'tool' - at `$.messages[0].role`"),
    ],
)
def test_refused_blocks(server: Server, role: str, block: dict[str, Any], words: str) -> None:
    answer = ask(server, messages=[{"role": role, "content": [_text("a"), block]}])
    assert answer.status_code == 422
    assert words in answer.json["error"]["message"].replace("[...]", "[0]", 1).replace(
        "[...]", "[1]"
    )


def test_an_image_in_a_result_is_refused() -> None:
    use = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [_text("a"), IMAGE]}
    with pytest.raises(RequestError, match=r"messages\[1\]\.content\[0\]\.content\[1\]. is .image"):
        chat_of(
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        )


def test_what_changes_nothing_is_ignored(server: Server) -> None:
    answer = ask(
        server,
        metadata={"user_id": "a"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        mcp_servers=[],
        speed="standard",
        container=None,
        system=None,
        tools=None,
    )
    assert answer.status_code == 200


def test_overloaded(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=0.2)
    ]
    answer = ask(server, stream=True)
    assert answer.status_code == 429
    assert answer.json["error"]["type"] == "rate_limit_error"


def test_failure_in_a_stream_is_its_last_event(server: Server) -> None:
    def fail(submit: Submit) -> list[Any]:
        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        gevent.spawn_later(0.01, server.pipeline.link.receive, ended)
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = fail
    answer = ask(server, stream=True)
    assert answer.status_code == 200
    (error,) = named(answer.content)
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"
    assert "broken" in error["error"]["message"]
    assert error["request_id"] == answer.headers["request-id"]
    server.pipeline.check_released(success=False)
