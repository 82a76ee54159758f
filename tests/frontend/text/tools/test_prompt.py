"""Telling a model of its tools."""

import json

from frontend.text.tools.prompt import INSTRUCTION, appended, tool_text


def test_the_tools_come_as_compact_json_then_the_instruction(kit):
    text = tool_text(kit.tools)
    listed, _, rest = text.partition("\n")
    assert json.loads(listed) == [tool.document() for tool in kit.tools]
    assert ": " not in listed.replace(kit.weather.description, "")
    assert "日本😀" in listed
    assert rest == INSTRUCTION


def test_the_instruction_shows_a_call_that_the_generic_reader_expects():
    example = INSTRUCTION[INSTRUCTION.index("{") : INSTRUCTION.rindex("}") + 1]
    assert list(json.loads(example)) == ["name", "arguments"]


def test_a_client_replaces_the_instruction_only(kit):
    assert tool_text(kit.tools, "Call!").endswith("]\nCall!")
    assert tool_text(kit.tools, "") == tool_text(kit.tools, None) == tool_text(kit.tools)


def test_the_last_message_gets_it():
    first, last = {"role": "system", "content": "a"}, {"role": "user", "content": "b"}
    assert appended([first, last], "T") == [first, {"role": "user", "content": "b\n---\nT"}]
    assert last["content"] == "b"
    assert appended([{"role": "user", "content": None}], "T")[0]["content"] == "\n---\nT"
    assert appended([], "T") == []


def test_parts_get_one_more():
    parts = [{"type": "text", "text": "b"}]
    (message,) = appended([{"role": "user", "content": parts}], "T")
    assert message["content"] == [*parts, {"type": "text", "text": "\n---\nT"}]
    assert len(parts) == 1


def test_a_message_that_calls_tools_stays():
    message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    assert appended([message], "T") == [message]
