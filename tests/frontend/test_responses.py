"""``/v1/responses``: answers and streams."""

import json
from pathlib import Path

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, serve
from tests.frontend.responses import (
    CALL,
    LOGPROBS,
    OTHER,
    TOOL,
    ask,
    both,
    message,
    prompt,
    texts,
)


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_whole_and_streamed(server: Server) -> None:
    answer = both(server)
    tokens = len(server.pipeline.of(Submit)[0].spec.prompt_ids)
    assert answer == {
        "object": "response",
        "created_at": 1_700_000_000,
        "completed_at": 1_700_000_000,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "some-model",
        "output": [message(" hello world")],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens + 3,
        },
        "user": None,
    }
    assert prompt(server) == "<|user|>hello\n<|assistant|>"
    server.pipeline.check_released(success=True)


def test_a_stream_has_no_terminator(server: Server) -> None:
    assert b"[DONE]" not in ask(server, stream=True).content


def test_the_answer_repeats_how_it_was_asked_for(server: Server) -> None:
    schema = {"type": "object"}
    format_ = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    fields = {
        "instructions": "be good",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "prompt_cache_key": "key",
        "reasoning": {"effort": "low"},
        "safety_identifier": "me",
        "temperature": 0.5,
        "text": {"format": format_, "verbosity": "low"},
        "top_p": 0.25,
        "user": "you",
    }
    answer = both(server, store=True, **fields)
    assert {**answer, **fields, "reasoning": {"effort": "low", "summary": None}} == answer
    assert answer["store"] is False
    choice = {"type": "function", "name": "clock"}
    answer = both(server, tools=[TOOL, OTHER], tool_choice=choice, parallel_tool_calls=False)
    assert answer["tool_choice"] == choice
    assert answer["tools"] == [
        {**TOOL, "description": None, "strict": None},
        {**OTHER, "parameters": None},
    ]
    assert answer["parallel_tool_calls"] is False


def test_schemas_are_repeated_with_their_integers(server: Server) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 10**30}}}
    (tool,) = both(server, tools=[{**TOOL, "parameters": schema}])["tools"]
    assert tool["parameters"] == schema
    form = {"type": "json_schema", "name": "n", "schema": schema}
    assert both(server, text={"format": form})["text"]["format"] == form


def test_the_headers_are_those_of_every_generating_route(server: Server) -> None:
    answer = ask(server)
    assert answer.headers["x-generated-tokens"] == "3"
    assert answer.headers["x-compute-type"] == "cpu"
    assert ask(server, stream=True).headers["x-compute-characters"] == str(len(prompt(server)))


def test_max_output_tokens_ends_it(server: Server) -> None:
    answer = both(server, max_output_tokens=1)
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["completed_at"] is None
    assert answer["output"] == [message(" hello", status="incomplete")]
    assert server.pipeline.of(Submit)[-1].spec.max_new_tokens == 1


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_answer_is_a_message(model_dir: Path, text: str) -> None:
    assert both(serve(model_dir, text))["output"] == [message(text)]


def test_log_probabilities(model_dir: Path) -> None:
    server = serve(model_dir, " hello world")
    answer = both(server, include=LOGPROBS, top_logprobs=2)
    (part,) = answer["output"][0]["content"]
    assert [entry["token"] for entry in part["logprobs"]] == [" hello", " world"]
    assert [entry["logprob"] for entry in part["logprobs"]] == [-0.5, -1.0]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [2, 2]
    assert answer["top_logprobs"] == 2


def test_log_probabilities_are_those_of_the_text_alone(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test</think>\n\n hello world")
    answer = both(server, include=LOGPROBS)
    part = answer["output"][1]["content"][0]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"] == " hello world"
    assert "logprobs" not in answer["output"][0]["content"][0]


def test_tool_calls(model_dir: Path) -> None:
    server = serve(model_dir, f"{CALL}\n{CALL}")
    answer = both(server, tools=[TOOL, OTHER], tool_choice="required")
    call = {
        "type": "function_call",
        "status": "completed",
        "name": "weather",
        "arguments": '{"city": "Paris"}',
    }
    assert answer["output"] == [call, call]
    assert answer["status"] == "completed"
    output = ask(server, tools=[TOOL]).json["output"]
    assert len({item["call_id"] for item in output} | {item["id"] for item in output}) == 4


def test_a_call_that_is_cut_off(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    length = len(server.services.tokenizer.encode(CALL, add_special_tokens=False))
    answer = both(server, tools=[TOOL], max_output_tokens=length - 3)
    assert answer["status"] == "incomplete"
    (call,) = answer["output"]
    assert call["status"] == "incomplete"
    assert call["arguments"]
    assert '{"city": "Paris"}'.startswith(call["arguments"])


def test_text_and_calls_are_told_in_order(model_dir: Path) -> None:
    server = serve(model_dir, f"{CALL}\nhello")
    answer = both(server, tools=[TOOL])
    assert [item["type"] for item in answer["output"]] == ["function_call", "message"]
    assert texts(answer) == ['{"city": "Paris"}', "\nhello"]


def test_reasoning(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test</think>hello")
    answer = both(server, reasoning={"effort": "high", "summary": "auto"})
    assert answer["output"] == [
        {
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "test"}],
            "encrypted_content": None,
        },
        message("hello"),
    ]
    counts = answer["usage"]
    assert 0 < counts["output_tokens_details"]["reasoning_tokens"] < counts["output_tokens"] - 1
    assert prompt(server).endswith("<|assistant|>!")
    both(server, reasoning={"effort": "none"})
    assert prompt(server).endswith("<|assistant|>")


def test_reasoning_that_is_cut_off_stands_alone(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test test test</think>hello")
    length = len(server.services.tokenizer.encode("<think>test test", add_special_tokens=False))
    answer = both(server, max_output_tokens=length)
    (item,) = answer["output"]
    assert (item["type"], item["status"]) == ("reasoning", "incomplete")
    assert texts(answer) == ["test test"]
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] == length


def test_blank_text_between_reasoning_and_a_call_is_left_out(thinking_dir: Path) -> None:
    server = serve(thinking_dir, f"<think>test</think>\n\n \n{CALL}")
    answer = both(server, tools=[TOOL])
    assert [item["type"] for item in answer["output"]] == ["reasoning", "function_call"]


def test_a_format_is_a_grammar(server: Server) -> None:
    schema = {"type": "object", "required": ["a"]}
    checks = server.services.grammars.checks
    format_ = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    assert ask(server, text={"format": format_}).status_code == 200
    assert json.loads(checks[-1].text) == schema
    assert ask(server, text={"format": {"type": "json_object"}}).status_code == 200
    assert json.loads(checks[-1].text) == {"type": "object"}
    # tools that must not be called leave the text free to have a format
    forbidden = {"tools": [TOOL], "tool_choice": "none"}
    assert ask(server, text={"format": format_}, **forbidden).status_code == 200
    assert ask(server, text={"format": {"type": "text"}}, tools=[TOOL]).status_code == 200
