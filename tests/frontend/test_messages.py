"""``/v1/messages``: answers, streams, counting, and how conversations are translated."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.messages import Cancel, Submit
from tests.frontend.anthropic import (
    CALL,
    MESSAGES,
    OTHER,
    TOOL,
    ask,
    both,
    chat_of,
    named,
    prompt,
    text_block,
)
from tests.frontend.fakes import TEMPLATE, Server, serve, write_model


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


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


@pytest.mark.parametrize(
    "city", ['"Par\nis"', "[" * 400 + "]" * 400, "12345678901234567890123", " { } "]
)
def test_whatever_a_call_holds_is_answered(model_dir: Path, city: str) -> None:
    server = serve(model_dir, f'{{"name": "weather", "arguments": {{"city": {city}}}}}')
    answer = ask(server, tools=[TOOL], max_tokens=1000)
    assert answer.status_code == 200
    (block,) = answer.json["content"]
    assert block["input"] == {"city": json.loads(city, strict=False)}


def test_tool_calls(model_dir: Path) -> None:
    server = serve(model_dir, f"{CALL}\n{CALL}")
    answer = both(server, tools=[TOOL, OTHER], tool_choice={"type": "any"})
    call = {"type": "tool_use", "name": "weather", "input": {"city": "Paris"}}
    assert answer["content"] == [call, call]
    assert answer["stop_reason"] == "tool_use"
    ids = [block["id"] for block in ask(server, tools=[TOOL]).json["content"]]
    assert len(set(ids)) == 2


def test_blocks_come_in_the_order_in_which_the_model_wrote_them(tmp_path: Path) -> None:
    """As in a stream, also where text comes between calls."""
    template = TEMPLATE + "{% if tools %}{{ tools }}<tool_call>{% endif %}"
    call = f"<tool_call>\n{CALL}\n</tool_call>"
    server = serve(write_model(tmp_path / "m", template=template), f"a{call}b{call}\n{call}c")
    content = both(server, tools=[TOOL], max_tokens=1000)["content"]
    called = {"type": "tool_use", "name": "weather", "input": {"city": "Paris"}}
    assert content == [text_block("a"), called, text_block("b"), called, called, text_block("c")]


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
        {"role": "user", "content": [{"type": "text", "text": "go "}, text_block("on")]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "redacted_thinking", "data": "x"},
                text_block("so"),
                use,
                {**use, "id": "t2", "name": "clock"},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [text_block("8"), text_block("am")],
                },
                {"type": "tool_result", "tool_use_id": "t1", "content": "no", "is_error": True},
                {**text_block("and?"), "cache_control": {"type": "ephemeral"}},
            ],
        },
        system=[text_block("be "), text_block("good")],
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


def test_turns_of_one_speaker_are_one() -> None:
    body = chat_of(
        {"role": "user", "content": "a"},
        {"role": "user", "content": [text_block("b")]},
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
