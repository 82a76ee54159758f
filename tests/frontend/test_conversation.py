"""Prompts of chat requests, seen through ``/chat_tokenize``: fields, roles, parts, calls."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from frontend.routes.tokenize import PIECE_TOKENS
from tests.frontend.fakes import Server, serve, write_model

ROUTE = "/chat_tokenize"
USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "Paris "}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}}

Make = Callable[..., Server]


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.fixture
def templated(tmp_path: Path) -> Make:
    """A server whose model has this template."""

    def make(template: str, **named: str) -> Server:
        path = write_model(tmp_path / "model", template=template)
        if named:
            config = json.loads((path / "tokenizer_config.json").read_text())
            named["default"] = template
            config["chat_template"] = [{"name": k, "template": t} for k, t in named.items()]
            (path / "tokenizer_config.json").write_text(json.dumps(config))
        return serve(path)

    return make


def prompt(server: Server, *messages: Any, **fields: Any) -> str:
    answer = server.post(ROUTE, {"messages": messages, **fields})
    assert answer.status_code == 200, answer.text
    text: str = answer.json["templated_text"]
    return text


def refusal(server: Server, *messages: Any, **fields: Any) -> str:
    answer = server.post(ROUTE, {"messages": messages, **fields})
    assert answer.status_code == 422, answer.text
    assert set(answer.json) == {"error", "error_type"}
    message: str = answer.json["error"]
    return message


# --- the route ------------------------------------------------------------------------------------


def test_tokens_and_text(server: Server) -> None:
    chat = {"role": "user", "content": "hello Zürich"}
    answer = server.post(ROUTE, {"messages": [chat], "model": "tgi", "stream": True})
    assert answer.headers["content-type"] == "application/json"
    text = answer.json["templated_text"]
    assert text == "<|user|>hello Zürich\n<|assistant|>"
    tokens = answer.json["tokenize_response"]
    assert [set(token) for token in tokens] == [{"id", "text", "start", "stop"}] * len(tokens)
    ids = server.services.tokenizer.encode(text, add_special_tokens=False)
    assert [token["id"] for token in tokens] == ids
    for token in tokens:
        assert text.encode()[token["start"] : token["stop"]].decode() == token["text"] != ""
    assert (tokens[0]["start"], tokens[-1]["stop"]) == (0, len(text.encode()))
    assert not server.pipeline.of(Submit)


def test_long_answers_come_in_pieces(server: Server) -> None:
    content = "ab\n" * PIECE_TOKENS
    answer = server.post(ROUTE, {"messages": [{"role": "user", "content": content}]})
    assert answer.json["templated_text"] == f"<|user|>{content}\n<|assistant|>"
    assert len(answer.json["tokenize_response"]) > 2 * PIECE_TOKENS


def test_the_same_prompt_as_a_chat(server: Server) -> None:
    body = {"messages": [USER, ASSISTANT, USER], "tools": [TOOL], "max_tokens": 1}
    tokens = server.post(ROUTE, body).json["tokenize_response"]
    answer = server.post("/v1/chat/completions", body)
    assert answer.json["usage"]["prompt_tokens"] == len(tokens)


def test_errors_are_native(server: Server, model_dir: Path) -> None:
    assert "`messages` cannot be empty" in refusal(server)
    assert "`messages`" in refusal(server, *[USER] * 4097)
    assert refusal(server, USER, tools=[TOOL], tool_choice="g").startswith("Tool error: ")
    assert refusal(serve(model_dir, template=False), USER).startswith("Template error: ")
    assert server.post(ROUTE, {"messages": "x"}).status_code == 422


# --- where the prompt ends ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "Paris "),
        ({"continue_final_message": True}, "Paris "),
        ({"continue_final_message": True, "add_generation_prompt": False}, "Paris "),
        ({"add_generation_prompt": False}, "Paris "),
        ({"add_generation_prompt": None, "continue_final_message": None}, "Paris "),
        ({"continue_final_message": False}, "Paris \n<|assistant|>"),
        ({"add_generation_prompt": True}, "Paris \n<|assistant|>"),
        ({"continue_final_message": False, "add_generation_prompt": False}, "Paris \n"),
    ],
)
def test_an_assistants_message_at_the_end(server: Server, fields: Any, end: str) -> None:
    assert prompt(server, USER, ASSISTANT, **fields) == f"<|user|>hello\n<|assistant|>{end}"


def test_a_users_message_at_the_end(server: Server) -> None:
    assert prompt(server, USER) == "<|user|>hello\n<|assistant|>"
    assert prompt(server, USER, add_generation_prompt=False) == "<|user|>hello\n"
    assert prompt(server, USER, continue_final_message=True) == "<|user|>hello"
    empty = {"role": "assistant", "content": ""}
    assert prompt(server, USER, empty) == "<|user|>hello\n<|assistant|>\n<|assistant|>"
    calls = {**ASSISTANT, "tool_calls": [CALL]}
    written = '{"name": "f", "arguments": {"a": [1]}}'
    assert prompt(server, USER, calls).endswith(f"<|assistant|>Paris \n{written}\n<|assistant|>")


def test_both_ends_exclude_each_other(server: Server) -> None:
    message = refusal(server, USER, continue_final_message=True, add_generation_prompt=True)
    assert "`continue_final_message`" in message
    assert "`add_generation_prompt`" in message


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_parts_of_text(server: Server, kind: str) -> None:
    parts = [{"type": kind, "text": "hel"}, {"type": "refusal", "refusal": "lo"}]
    assert prompt(server, {"role": "user", "content": parts}) == "<|user|>hello\n<|assistant|>"
    assert prompt(server, {"role": "user", "content": []}) == "<|user|>\n<|assistant|>"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}], "[1]"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], "image_url"),
        ([{"type": "input_audio", "input_audio": {}}], "input_audio"),
        ([{"type": "x" * 1000}], "`" + "x" * 40 + "`"),
        ([{"type": "text"}], "`messages[0].content[0]` needs `text`"),
        ([{"type": "refusal", "text": "a"}], "needs `refusal`"),
        ([3], "$.messages[0].content[0]"),
        (None, "`messages[0]` needs `content` or `tool_calls`"),
    ],
)
def test_other_parts_are_named(server: Server, content: Any, named: str) -> None:
    message = refusal(server, {"role": "user", "content": content})
    assert named in message
    assert len(message) < 200


def test_audio_of_the_assistant_is_named(server: Server) -> None:
    assert "`messages[0].audio`" in refusal(server, {**ASSISTANT, "audio": {"id": "x"}})
    assert prompt(server, {**USER, "audio": None, "refusal": None, "function_call": None})


def test_refusals_are_what_was_said(server: Server) -> None:
    said = {"role": "assistant", "content": None, "refusal": "No."}
    assert prompt(server, said, USER).startswith("<|assistant|>No.\n")


def test_developers(server: Server, templated: Make) -> None:
    chat = ({"role": "developer", "content": "x"}, USER)
    assert prompt(server, *chat).startswith("<|system|>x")
    knows = (
        "{% for m in messages %}{{ m.role }}{% if m.role == 'developer' %}!{% endif %},{% endfor %}"
    )
    assert prompt(templated(knows), *chat) == "developer!,user,"


FIELDS = "{% for m in messages %}{{ m | tojson(sort_keys=True) }}\n{% endfor %}{{ tools }}"


def messages(server: Server, *given: Any) -> list[Any]:
    *found, _ = prompt(server, *given).split("\n")
    return [json.loads(line) for line in found]


def test_older_calls_become_newer_ones(templated: Make) -> None:
    server = templated(FIELDS)
    older = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": '{"a": 1}'},
    }
    result = {"role": "function", "name": "f", "content": "2"}
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    assert messages(server, older, result) == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "f", "content": "2"},
    ]
    broken = {"role": "assistant", "function_call": {"arguments": "{}"}}
    assert "`messages[0].function_call`" in refusal(server, broken)


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"arguments": '{"a": [1]}'}, {"a": [1]}),
        ({"arguments": {"a": [1]}}, {"a": [1]}),
        ({"parameters": {"a": [1]}}, {"a": [1]}),
        ({"arguments": None, "parameters": '{"a": 2}'}, {"a": 2}),
        ({"arguments": ""}, {}),
        ({}, {}),
        ({"arguments": "[1]"}, "[1]"),
        ({"arguments": "{not JSON"}, "{not JSON"),
        ({"arguments": [1]}, [1]),
        ({"arguments": f'{{"a": [{2**64}, {-(10**30)}]}}'}, {"a": [2**64, -(10**30)]}),
        ({"arguments": {"a": [2**64, -(10**30)]}}, {"a": [2**64, -(10**30)]}),
        ({"arguments": '{"a": 1e999}'}, '{"a": 1e999}'),
        ({"arguments": '{"a": "\\ud800"}'}, '{"a": "\\ud800"}'),
    ],
)
def test_forms_of_arguments(templated: Make, given: Any, arguments: Any) -> None:
    call = {"id": "1", "function": {"name": "f", **given}}
    (message,) = messages(templated(FIELDS), {"role": "assistant", "tool_calls": [call]})
    function = {"name": "f", "arguments": arguments}
    assert message["tool_calls"] == [{"type": "function", "id": "1", "function": function}]


def test_calls_are_written_for_templates_that_leave_them_out(
    server: Server, templated: Make
) -> None:
    """In the form in which the model was asked for them."""
    chat = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}, USER]
    written = '{"name": "f", "arguments": {"a": [1]}}'
    assert prompt(server, *chat).split("<|assistant|>")[1].startswith(f"{written}\n{written}\n")
    template = "{% for m in messages %}{{ m.content }}|{{ m.tool_calls | length }}|{% endfor %}"
    assert prompt(templated(template), *chat) == "hello|0||2|hello|0|"
    own = "{% for m in messages %}{{ m.content }}|{% endfor %}{{ tools }}<tool_call>"
    assert prompt(templated(own), *chat) == "hello||hello|None<tool_call>"


DEEPSEEK = """{%- for message in messages %}
{%- if message['role'] == 'assistant' and message['content'] is none %}
{%- for tool in message['tool_calls'] %}
{{- '<call>' + tool['function']['name'] + '\\n' + tool['function']['arguments'] + '</call>' }}
{%- endfor %}
{%- endif %}
{%- if message['role'] == 'assistant' and message['content'] is not none %}
{{- '<said>' + message['content'] }}
{%- endif %}
{%- endfor %}"""


def test_calls_for_templates_that_want_no_content_and_arguments_as_text(templated: Make) -> None:
    server = templated(DEEPSEEK)
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    expected = '<call>f\n{"a": [1]}</call><said>Paris '
    assert prompt(server, USER, called, ASSISTANT) == expected
    assert prompt(server, USER, {**called, "content": ""}, ASSISTANT) == expected
    odd = {"id": "1", "function": {"name": "f", "arguments": "{not JSON"}}
    assert prompt(server, USER, {**called, "tool_calls": [odd]}) == "<call>f\n{not JSON</call>"


TURNS = """{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}
{{- '<' + m.role + '>' + m.content }}
{%- endfor %}"""
KNOWN = """{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<user>' + m.content }}
{%- elif m.role == 'assistant' %}{{ '<assistant>' + m.content }}{% endif %}
{%- endfor %}"""


@pytest.mark.parametrize("template", [TURNS, KNOWN])
def test_results_are_told_by_the_user_where_templates_know_nobody_else(
    templated: Make, template: str
) -> None:
    """They were left out, or the whole conversation was refused."""
    result = {"role": "tool", "tool_call_id": "1", "content": "42"}
    called = {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}
    server = templated(template)
    written = '{"name": "f", "arguments": {"a": [1]}}'
    begin = f"<user>hello<assistant>{written}\n{written}<user>42\n42"
    assert prompt(server, USER, called, result, result) == begin
    assert prompt(server, USER, called, result, result, USER) == f"{begin}\nhello"
    assert prompt(server, USER, ASSISTANT, USER) == "<user>hello<assistant>Paris <user>hello"


@pytest.mark.parametrize("role", ["User", "critic", "", "x" * 99])
def test_roles_that_a_template_would_leave_out_are_named(templated: Make, role: str) -> None:
    message = refusal(templated(KNOWN), USER, ASSISTANT, {"role": role, "content": "x"})
    assert f"`messages[2].role` is `{role[:40]}`: " in message


def test_roles_of_a_template_are_its_own(server: Server, templated: Make) -> None:
    odd = {"role": "critic", "content": "x"}
    assert prompt(server, USER, odd) == "<|user|>hello\n<|critic|>x\n<|assistant|>"
    knows = KNOWN.replace("'assistant' %}", "'assistant' or m.role == 'critic' %}")
    assert prompt(templated(knows), USER, odd) == "<user>hello<assistant>x"
    assert prompt(templated(KNOWN), {"role": "system", "content": "x"}, USER) == "<user>hello"


def test_calls_come_back_as_models_write_them(templated: Make) -> None:
    """Whatever the order of the keys, and what is null: as ``huggingface_hub`` sends them."""
    server = templated(
        "{% for m in messages %}{{ m.tool_calls | tojson }}{% endfor %}{# [TOOL_CALLS] #}"
    )
    function = {"arguments": '{"a": 1}', "name": "f", "description": None}
    call = {"function": function, "id": "abcdefgh1", "type": "function"}
    written = '{"name": "f", "arguments": {"a": 1}}'
    expected = f'[{{"type": "function", "function": {written}, "id": "abcdefgh1"}}]'
    assert prompt(server, {"role": "assistant", "tool_calls": [call]}) == expected


@pytest.mark.parametrize("call", [{}, {"function": None}, {"function": {"name": 3}}, {"name": "f"}])
def test_broken_calls_are_named(server: Server, call: Any) -> None:
    chat = [USER, {"role": "assistant", "content": "", "tool_calls": [CALL, call]}]
    assert "`messages[1].tool_calls[1]`" in refusal(server, *chat)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning(templated: Make, name: str) -> None:
    (message, _) = messages(templated(FIELDS), {**ASSISTANT, name: "hm"}, USER)
    assert message == {**ASSISTANT, "reasoning_content": "hm", "thinking": "hm"}


# --- what else templates read ---------------------------------------------------------------------


def test_variables(templated: Make) -> None:
    server = templated("{{ enable_thinking }}|{{ bos_token }}|{{ x.y }}")
    kwargs = {"enable_thinking": False, "x": {"y": 1}}
    assert prompt(server, USER, chat_template_kwargs=kwargs) == "False|<s>|1"
    for name in ("messages", "tools", "documents", "continue_final_message"):
        assert f"`{name}`" in refusal(server, USER, chat_template_kwargs={name: []})


def test_documents(server: Server, templated: Make) -> None:
    given = [{"title": "T", "text": "x"}]
    assert "`documents`" in refusal(server, USER, documents=given)
    assert prompt(server, USER, documents=[]) == prompt(server, USER)
    assert "documents[0]" in refusal(server, USER, documents=["x"])
    reads = templated("{{ documents[0].title if documents }}")
    assert prompt(reads, USER, documents=given) == "T"
    assert prompt(reads, USER) == ""
    named = templated(
        "plain", rag="{{ documents[0].title }}", tool_use="{{ tools[0].function.name }}"
    )
    assert prompt(named, USER) == "plain"
    assert prompt(named, USER, documents=given) == "T"
    assert prompt(named, USER, tools=[TOOL]) == "f"


def test_tools(server: Server, templated: Make) -> None:
    knows = templated("{{ tools | tojson }}")
    assert json.loads(prompt(knows, USER, tools=[TOOL])) == [TOOL]
    assert prompt(knows, USER, tools=[TOOL], tool_choice="none") == "null"
    told = prompt(server, USER, tools=[TOOL], tool_prompt="Call!")
    assert told.startswith('<|user|>hello\n---\n[{"type":"function",')
    assert told.endswith("\nCall!\n<|assistant|>")


def test_tools_are_not_told_in_a_begun_message(server: Server) -> None:
    told = prompt(server, USER, ASSISTANT, tools=[TOOL], tool_prompt="Call!")
    assert told.endswith("\nCall!\n<|assistant|>Paris ")


def test_deep_conversations(server: Server) -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    assert "nested too deeply" in refusal(server, USER, chat_template_kwargs={"x": deep})
    for depth in (254, 600, 1020, 100_000):  # what is read from a text
        text = '{"a": ' + "[" * depth + "]" * depth + "}"
        call = {"function": {"name": "f", "arguments": text}}
        calls = {"role": "assistant", "content": "", "tool_calls": [call]}
        assert "nested too deeply" in refusal(server, USER, calls)


def test_effort(templated: Make) -> None:
    server = templated("{{ reasoning_effort }} {{ enable_thinking }} {{ thinking }}")
    assert prompt(server, USER) == "  "
    assert prompt(server, USER, reasoning_effort="high") == "high True True"
    assert prompt(server, USER, reasoning_effort="minimal") == "low True True"
    assert prompt(server, USER, reasoning_effort="max") == "high True True"
    assert prompt(server, USER, reasoning_effort="none") == " False False"
    own = {"chat_template_kwargs": {"reasoning_effort": "odd"}}
    assert prompt(server, USER, reasoning_effort="low", **own) == "odd True True"
    assert "reasoning_effort" in refusal(server, USER, reasoning_effort="huge")
