"""A model that answers in channels, through every chat surface: answers, prompts, grammars."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve, write_model
from tests.frontend.responses import both, texts

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "hello"}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time",
        "parameters": {"type": "object", "properties": {"tz": {"type": "string"}}},
    },
}
ASSISTANT = "<|start|>assistant"
THOUGHT = f"<|channel|>analysis<|message|>Hm 日本<|end|>{ASSISTANT}"
FINAL = "<|channel|>final<|message|>"
ARGUMENTS = '{"tz": "Paris"}'
HEAD = "<|channel|>commentary to=functions.get_time <|constrain|>json<|message|>"
CALL = f"{HEAD}{ARGUMENTS}<|call|>"
PREAMBLE = f"<|channel|>commentary<|message|>I look.<|end|>{ASSISTANT}"
INVENTED = "<|start|>functions.get_time to=assistant<|channel|>commentary<|message|>noon<|end|>"
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def chat(server: Server, *messages: Any, **fields: Any) -> Any:
    return server.post(CHAT, {"messages": messages or [USER], **fields})


def whole(server: Server, **fields: Any) -> tuple[dict[str, Any], str]:
    """The only message and its finish reason; the same as a stream."""
    answer = chat(server, **fields)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json["choices"]
    *chunks, _ = events(chat(server, stream=True, **fields).content)
    told: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        for name in ("content", "reasoning_content"):
            told[name] += delta.get(name, "")
        for piece in delta.get("tool_calls", []):
            if "id" in piece:
                told["tool_calls"].append({"name": piece["function"]["name"], "arguments": ""})
            told["tool_calls"][piece["index"]]["arguments"] += piece["function"]["arguments"]
    message = choice["message"]
    found = {name: message.get(name) or value * 0 for name, value in told.items()}
    found["tool_calls"] = [call["function"] for call in found["tool_calls"]]
    assert found == told
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    return message, choice["finish_reason"]


def submitted(server: Server) -> Any:
    return server.pipeline.of(Submit)[-1].spec


def prompt(server: Server, *messages: Any, **fields: Any) -> str:
    answer = server.post("/chat_tokenize", {"messages": messages, **fields})
    assert answer.status_code == 200, answer.text
    text: str = answer.json["templated_text"]
    return text


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [None, [TIME]])
def test_reasoning_is_told_from_the_answer(channels_dir: Path, tools: Any) -> None:
    server = serve(channels_dir, f"{THOUGHT}{FINAL}Hello<|return|>")
    message, reason = whole(server, tools=tools)
    assert message == {"role": "assistant", "content": "Hello", "reasoning_content": "Hm 日本"}
    assert reason == "stop"


def test_a_call_ends_the_answer(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{PREAMBLE}{CALL}{INVENTED}")
    message, reason = whole(server, tools=[TIME])
    assert message["content"] == "I look."
    assert message["reasoning_content"] == "Hm 日本"
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "get_time", "arguments": ARGUMENTS}
    assert reason == "tool_calls"
    (choice,) = chat(server, tools=[TIME]).json["choices"]
    assert choice["stop_reason"] is None
    assert submitted(server).grammar == ""


def test_an_answer_may_be_made_to_go_on_after_its_ends(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{CALL}{ASSISTANT}{FINAL}Noon<|return|> more")
    message, reason = whole(server, tools=[TIME], ignore_eos=True, max_tokens=500)
    assert message["content"] == "Noon more"
    assert len(message["tool_calls"]) == 1
    assert submitted(server).stop_token_ids == []
    assert reason == "length"


def test_a_token_that_the_client_ends_by_is_named(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{FINAL}hello world")
    world = server.services.tokenizer.encode(" world", add_special_tokens=False)
    (choice,) = chat(server, stop_token_ids=world).json["choices"]
    assert choice["message"]["content"] == "hello"
    assert choice["stop_reason"] == world[0]


@pytest.mark.parametrize("limit", range(1, 40, 3))
def test_no_markup_is_told_wherever_the_length_cuts(channels_dir: Path, limit: int) -> None:
    server = serve(channels_dir, f"{THOUGHT}{PREAMBLE}{CALL}")
    message, reason = whole(server, tools=[TIME], max_tokens=limit)
    assert reason == "length"
    assert "<|" not in json.dumps(message)
    assert "I look.".startswith(message["content"] or "")


def test_a_stop_string_cuts_the_reasoning_too(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{FINAL}Hello<|return|>")
    message, reason = whole(server, stop=["日"])
    assert message == {"role": "assistant", "content": "", "reasoning_content": "Hm "}
    assert reason == "stop"


def test_text_without_channels_is_content(channels_dir: Path) -> None:
    message, _ = whole(serve(channels_dir, "hello world"))
    assert message == {"role": "assistant", "content": "hello world"}


def test_a_begun_message_goes_on(channels_dir: Path) -> None:
    server = serve(channels_dir, " world<|return|>")
    answer = chat(server, USER, {"role": "assistant", "content": "hello <"})
    assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": " world"}


def test_special_tokens_on_demand(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{FINAL}Hello<|return|>")
    message, _ = whole(server, skip_special_tokens=False)
    assert message["content"] == "Hello"


def test_responses(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{PREAMBLE}{CALL}")
    answer = both(server, tools=[{"type": "function", **TIME["function"]}])  # type: ignore[dict-item]
    assert [item["type"] for item in answer["output"]] == ["reasoning", "message", "function_call"]
    assert texts(answer) == ["Hm 日本", "I look.", ARGUMENTS]
    assert answer["status"] == "completed"


def test_log_probabilities_of_a_message_are_those_of_its_text(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{FINAL}a<|return|>")
    answer = both(server, include=["message.output_text.logprobs"])
    (part,) = answer["output"][1]["content"]
    assert [told["token"] for told in part["logprobs"]] == ["a"]
    count = len(server.services.tokenizer.encode(f"{THOUGHT}{FINAL}a", add_special_tokens=False))
    assert part["logprobs"][0]["logprob"] == -0.5 * count


def test_messages(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{PREAMBLE}{CALL}")
    tool = {"name": "get_time", "input_schema": {"properties": {"tz": {"type": "string"}}}}
    answer = server.post("/v1/messages", {"messages": [USER], "max_tokens": 500, "tools": [tool]})
    kinds = [block["type"] for block in answer.json["content"]]
    assert kinds == ["thinking", "text", "tool_use"]
    assert answer.json["stop_reason"] == "tool_use"


@pytest.mark.parametrize("stream", [False, True])
def test_channels_are_read_in_the_dialect_of_tgi_too(channels_dir: Path, stream: bool) -> None:
    server = serve(channels_dir, f"{THOUGHT}{FINAL}Hello<|return|>", messages_api_dialect="tgi")
    answer = chat(server, stream=stream)
    assert "<|" not in answer.text
    if not stream:
        message = answer.json["choices"][0]["message"]
        assert message == {"role": "assistant", "content": "Hello", "reasoning_content": "Hm 日本"}


# --- what is demanded -----------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["required", {"function": {"name": "get_time"}}])
def test_a_demanded_call_comes_after_the_reasoning(channels_dir: Path, choice: Any) -> None:
    server = serve(channels_dir, f"{THOUGHT}{CALL}")
    message, reason = whole(server, tools=[TIME], tool_choice=choice)
    assert message["tool_calls"][0]["function"]["arguments"] == ARGUMENTS
    assert message["content"] is None
    assert reason == "tool_calls"
    token = server.services.tokenizer.encode("<|call|>", add_special_tokens=False)
    assert submitted(server).stop_token_ids[-1:] == token
    assert '"commentary"' in submitted(server).grammar


def test_a_format_is_that_of_the_final_message(channels_dir: Path) -> None:
    server = serve(channels_dir, f"{THOUGHT}{FINAL}{{}}<|return|>")
    message, _ = whole(server, response_format=FORM)
    assert message["content"] == "{}"
    assert server.services.grammars.checks[-1].kind == "framed"  # type: ignore[attr-defined]
    begun = {"role": "assistant", "content": "{"}
    assert chat(server, USER, begun, response_format=FORM).status_code == 200
    assert server.services.grammars.checks[-1].kind == "json_schema"  # type: ignore[attr-defined]


# --- prompts --------------------------------------------------------------------------------------


def made(name: str, identity: str) -> dict[str, Any]:
    function = {"name": name, "arguments": '{"a": [1]}'}
    return {"id": identity, "type": "function", "function": function}


def test_a_conversation_with_calls(channels_dir: Path) -> None:
    text = prompt(
        serve(channels_dir),
        USER,
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Hm",
            "tool_calls": [made("f", "1"), made("g", "2")],
        },
        {"role": "tool", "tool_call_id": "2", "content": "rain"},
        {"role": "tool", "tool_call_id": "1", "content": '{"sunny": true}'},
    )
    call = '<|channel|>commentary json<|message|>{"a": [1]}<|call|>'
    to_us = " to=assistant<|channel|>commentary<|message|>"
    assert text.endswith(
        f"<|start|>user<|message|>hello<|end|>{ASSISTANT}<|channel|>analysis<|message|>"
        f"Hm\n\nI look.<|end|>{ASSISTANT} to=functions.f{call}"
        f'<|start|>functions.f{to_us}{{"sunny": true}}<|end|>{ASSISTANT} to=functions.g{call}'
        f'<|start|>functions.g{to_us}"rain"<|end|>{ASSISTANT}'
    )


def test_results_stay_texts_where_the_template_writes_texts(tmp_path: Path) -> None:
    head = "{# <|start|><|channel|><|message|> #}{% for m in messages %}"
    template = (
        head + "{{ m.role }}: {{ m.content }} {{ (m.tool_calls or []) | tojson }}{% endfor %}"
    )
    server = serve(write_model(tmp_path / "model", template=template))
    called = {"role": "assistant", "content": "", "tool_calls": [made("f", "1")]}
    result = {"role": "tool", "tool_call_id": "1", "content": '{"sunny": true}'}
    assert 'tool: {"sunny": true} ' in prompt(server, USER, called, result)


def test_a_prompt_for_tools_stands_in_the_text_of_the_last_result(channels_dir: Path) -> None:
    called = {"role": "assistant", "content": "", "tool_calls": [made("f", "1")]}
    result = {"role": "tool", "tool_call_id": "1", "content": '{"sunny": true}'}
    text = prompt(serve(channels_dir), USER, called, result, tools=[TIME], tool_prompt="Call!")
    assert '<|message|>"{\\"sunny\\": true}\\n---\\nCall!"<|end|>' in text


def test_a_model_that_always_reasons_cannot_be_told_not_to(channels_dir: Path) -> None:
    server = serve(channels_dir)
    sentence = "the reasoning effort cannot be `none`: this model always reasons; try `low`"
    responses = {"input": "hello", "reasoning": {"effort": "none"}}
    for answer in (
        chat(server, reasoning_effort="none"),
        server.post("/v1/responses", responses),
    ):
        assert answer.status_code == 422
        assert sentence in answer.text


def test_effort_and_tools_reach_the_template(channels_dir: Path) -> None:
    server = serve(channels_dir)
    assert "Reasoning: medium" in prompt(server, USER)
    assert "Reasoning: high" in prompt(server, USER, reasoning_effort="high")
    assert "Reasoning: low" in prompt(server, USER, reasoning_effort="minimal")
    own = {"chat_template_kwargs": {"reasoning_effort": "odd"}}
    assert "Reasoning: odd" in prompt(server, USER, reasoning_effort="low", **own)
    assert "type get_time = (_: {" in prompt(server, USER, tools=[TIME])
