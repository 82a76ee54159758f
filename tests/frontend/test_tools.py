"""Tool calls through chat: who may choose, what is demanded, what comes back."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hello"}]
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time",
        "parameters": {"type": "object", "properties": {"tz": {"type": "string"}}},
    },
}
STOP = {"type": "function", "function": {"name": "stop"}}
CALL = '{"name": "get_time", "arguments": {"tz": "Paris"}}'


def chat(server: Server, **fields: Any) -> Any:
    return server.post(CHAT, {"messages": MESSAGES, **fields})


def grammar(server: Server) -> str:
    found: str = server.pipeline.of(Submit)[-1].spec.grammar
    return found


def prompt(server: Server) -> str:
    spec = server.pipeline.of(Submit)[-1].spec
    return server.services.tokenizer.decode(spec.prompt_ids, skip_special_tokens=False)


def test_a_call_is_answered_as_a_call(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    (choice,) = chat(server, tools=[TIME, STOP]).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "get_time", "arguments": '{"tz": "Paris"}'}
    assert grammar(server) != ""
    server.pipeline.check_released(success=True)


@pytest.mark.parametrize(
    ("stop", "reason"), [("tz", "stop"), ("Paris", "stop"), ("!", "tool_calls"), ("}}", "stop")]
)
def test_a_call_that_a_stop_string_cuts_off_is_none_to_be_run(
    model_dir: Path, stop: str, reason: str
) -> None:
    server = serve(model_dir, CALL + "!")
    (choice,) = chat(server, tools=[TIME], stop=stop).json["choices"]
    assert choice["message"]["tool_calls"]
    assert choice["finish_reason"] == reason
    *_, last, _ = events(chat(server, tools=[TIME], stop=stop, stream=True).content)
    assert last["choices"][0]["finish_reason"] == reason


def test_text_is_answered_as_text(model_dir: Path) -> None:
    server = serve(model_dir, " hello world")
    (choice,) = chat(server, tools=[TIME]).json["choices"]
    assert choice["message"] == {"role": "assistant", "content": " hello world"}
    assert choice["finish_reason"] == "stop"


def test_the_deltas_of_a_stream_reassemble(model_dir: Path) -> None:
    server = serve(model_dir, CALL + "\n" + CALL)
    *chunks, done = events(chat(server, tools=[TIME], stream=True).content)
    assert done == "[DONE]"
    calls: dict[int, dict[str, str]] = {}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        for piece in delta.get("tool_calls", []):
            call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
            call["id"] += piece.get("id", "")
            call["name"] += piece["function"].get("name", "")
            call["arguments"] += piece["function"].get("arguments", "")
    assert [call["name"] for call in calls.values()] == ["get_time"] * 2
    assert [json.loads(call["arguments"]) for call in calls.values()] == [{"tz": "Paris"}] * 2
    assert len({call["id"] for call in calls.values()}) == 2
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_template_that_knows_no_tools_is_helped(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    assert chat(server, tools=[TIME], tool_prompt="Call!").status_code == 200
    assert '"name":"get_time"' in prompt(server)
    assert "Call!" in prompt(server)
    assert chat(server, tools=[TIME], tool_choice="none").status_code == 200
    assert "get_time" not in prompt(server)
    assert grammar(server) == ""


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        "get_time",
        {"type": "function", "function": {"name": "get_time"}},
        {"type": "function", "name": "get_time"},
        {"function": {"name": "get_time"}},
    ],
)
def test_demanded_calls_have_a_grammar_of_their_own(model_dir: Path, choice: Any) -> None:
    server = serve(model_dir, CALL)
    assert chat(server, tools=[TIME, STOP]).status_code == 200
    free = grammar(server)
    answer = chat(server, tools=[TIME, STOP], tool_choice=choice)
    assert answer.json["choices"][0]["message"]["tool_calls"]
    assert grammar(server) not in ("", free)
    assert ("stop" in prompt(server)) == (choice == "required")


def allowed(mode: str, *tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_may_be_called(model_dir: Path, mode: str) -> None:
    server = serve(model_dir, CALL)
    other = {"type": "function", "function": {"name": "other"}}
    assert chat(server, tools=[TIME, STOP], tool_choice=mode).status_code == 200
    alone = prompt(server), grammar(server)
    choice = allowed(mode, {"type": "function", "function": {"name": "stop"}}, TIME, STOP)
    answer = chat(server, tools=[TIME, other, STOP], tool_choice=choice)
    assert answer.json["choices"][0]["message"]["tool_calls"]
    assert (prompt(server), grammar(server)) == alone


def test_a_tool_may_be_called_like_a_mode(model_dir: Path) -> None:
    server = serve(model_dir, '{"name": "none", "arguments": {}}')
    tools = [{"type": "function", "function": {"name": "none"}}]
    choice = {"type": "function", "function": {"name": "none"}}
    answer = chat(server, tools=tools, tool_choice=choice).json
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "none"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TIME], "tool_choice": "other"},
        {"tools": [TIME], "tool_choice": {"function": {}}},
        {"tools": [TIME], "tool_choice": {"type": "function"}},
        {"tools": [TIME], "tool_choice": {"type": "allowed_tools"}},
        {"tools": [TIME], "tool_choice": allowed("none", TIME)},
        {"tools": [TIME], "tool_choice": allowed("auto")},
        {"tools": [TIME], "tool_choice": allowed("auto", 3)},
        {"tools": [TIME], "tool_choice": allowed("auto", TIME, STOP)},
        {"tool_choice": allowed("auto", TIME)},
        {"tool_choice": "required"},
        {"tools": [], "tool_choice": "required"},
        {"tools": [TIME, TIME]},
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        {"tools": [{"type": "function", "function": {"name": "a\nb"}}]},
        {"tools": [{"function": {"name": f"f{i}"}} for i in range(129)]},
        {"tools": [TIME], "response_format": {"type": "json_object"}},
        {"tools": [], "response_format": {"type": "json_object"}},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(model_dir: Path, fields: dict[str, Any], stream: bool) -> None:
    server = serve(model_dir)
    answer = chat(server, **fields, stream=stream)
    assert answer.status_code == 422
    assert answer.json["error_type"] == "tool_error"
    assert answer.json["error"]["message"].startswith("Tool error: ")
    assert not server.pipeline.of(Submit)


@pytest.mark.parametrize(
    ("tool", "sentence"),
    [
        ({"type": "web_search"}, "`tools[1].type` is `web_search`: only `function` tools"),
        ({"type": "custom", "custom": {"name": "f"}}, "`tools[1].type` is `custom`"),
        ({"type": "function", "name": "f"}, "`tools[1]` needs `function`"),
    ],
)
def test_tools_that_are_no_functions(model_dir: Path, tool: dict[str, Any], sentence: str) -> None:
    answer = chat(serve(model_dir), tools=[TIME, tool])
    assert answer.status_code == 422
    assert answer.json["error"]["message"].startswith(f"Tool error: {sentence}")


def test_a_tool_of_any_type_is_a_function_if_it_has_one(model_dir: Path) -> None:
    """As with TGI, which looks at no tool's type."""
    server = serve(model_dir, CALL)
    answer = chat(server, tools=[TIME | {"type": "other"}])
    assert answer.json["choices"][0]["message"]["tool_calls"]


def test_a_grammar_and_a_minimum_length_exclude_each_other(model_dir: Path) -> None:
    server = serve(model_dir)
    answer = chat(server, response_format={"type": "json_object"}, min_tokens=2)
    assert answer.status_code == 422
    assert "`min_tokens`" in answer.json["error"]["message"]


def test_without_grammars_the_model_may_still_call(model_dir: Path) -> None:
    server = serve(model_dir, CALL, disable_grammar_support=True)
    (choice,) = chat(server, tools=[TIME]).json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert grammar(server) == ""


def test_tgis_calls(model_dir: Path) -> None:
    server = serve(model_dir, CALL, messages_api_dialect="tgi")
    (choice,) = chat(server, tools=[TIME]).json["choices"]
    assert choice["finish_reason"] == "stop"
    (call,) = choice["message"]["tool_calls"]
    assert "content" not in choice["message"]
    assert call == {
        "id": "0",
        "type": "function",
        "function": {"description": None, "name": "get_time", "arguments": '{"tz":"Paris"}'},
    }
    history = [
        *MESSAGES,
        {"role": "assistant", "tool_calls": [{**call, "id": "4"}]},
        {"role": "tool", "content": "noon", "tool_call_id": "4"},
    ]
    answer = server.post(CHAT, {"messages": history, "tools": [TIME], "stream": True})
    *chunks, _ = events(answer.content)
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert {call["id"] for d in deltas for call in d["tool_calls"] or []} == {"5"}
    names = [call["function"]["name"] for d in deltas for call in d["tool_calls"] or []]
    assert names[0] == "get_time"
    assert set(names[1:]) == {None}
    assert {c["choices"][0]["finish_reason"] for c in chunks} == {None}
    text = "".join(call["function"]["arguments"] for d in deltas for call in d["tool_calls"] or [])
    assert json.loads(text) == {"tz": "Paris"}


def test_arguments_of_tgis_calls_may_nest_as_deep_as_they_like(model_dir: Path) -> None:
    deep = "[" * 400 + "]" * 400
    server = serve(model_dir, CALL.replace('"Paris"', deep), messages_api_dialect="tgi")
    (choice,) = chat(server, tools=[TIME]).json["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["arguments"].replace(" ", "") == f'{{"tz":{deep}}}'


def test_integers_of_tgis_calls_are_exact(model_dir: Path) -> None:
    server = serve(model_dir, CALL.replace('"Paris"', str(2**64)), messages_api_dialect="tgi")
    (choice,) = chat(server, tools=[TIME]).json["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["arguments"] == f'{{"tz":{2**64}}}'


def test_a_demanded_call_that_is_cut_before_it_begins_says_nothing(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    fields = {"tools": [TIME], "tool_choice": "required", "max_tokens": 4}
    (choice,) = chat(server, **fields).json["choices"]
    assert choice["message"] == {"role": "assistant", "content": ""}
    assert choice["finish_reason"] == "length"
    *chunks, _ = events(chat(server, **fields, stream=True).content)
    assert [c["choices"][0]["delta"] for c in chunks] == [{"role": "assistant"}]


def test_a_list_of_no_biases_is_accepted(model_dir: Path) -> None:
    assert chat(serve(model_dir), logit_bias=[0.0, 0.0]).status_code == 200
