"""Conversations for templates that write one call of a message."""

from typing import Any

import pytest

from frontend.text.tools.one_by_one import one_by_one

USER = {"role": "user", "content": "hello", "tool_calls": None}


def call(name: str, identity: str | None = None) -> dict[str, Any]:
    given = {} if identity is None else {"id": identity}
    return {**given, "type": "function", "function": {"name": name, "arguments": {}}}


def said(*calls: Any, content: str = "", thoughts: str | None = None) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": content,
        "reasoning_content": thoughts,
        "tool_calls": list(calls) or None,
    }


def result(content: str, identity: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": identity, "tool_calls": None}


def test_what_calls_nothing_stays():
    messages = [USER, said(content="Yes", thoughts="Hm"), USER]
    assert one_by_one(messages) == messages


def test_each_call_has_a_message_and_its_result_behind_it():
    one, two, three = call("f", "1"), call("g", "2"), call("h", "3")
    messages = [
        USER,
        said(one, two, three, thoughts="Hm"),
        result("b", "2"),
        result("a", "1"),
        result("of nobody", "9"),
        USER,
    ]
    before = [dict(message) for message in messages]
    assert one_by_one(messages) == [
        USER,
        said(one, thoughts="Hm"),
        result("a", "1"),
        said(two),
        result("b", "2"),
        said(three),
        result("of nobody", "9"),
        USER,
    ]
    assert messages == before


@pytest.mark.parametrize("identities", [("1", "2"), (None, None)])
def test_results_without_ids_come_in_order(identities):
    one, two = (call(name, found) for name, found in zip("fg", identities, strict=True))
    told = one_by_one([said(one, two), result("a"), result("b")])
    assert told == [said(one), result("a"), said(two), result("b")]


def test_a_text_beside_a_call_joins_the_thoughts():
    told = one_by_one([said(call("f"), content="I will look.", thoughts="Hm")])
    assert told == [said(call("f"), thoughts="Hm\n\nI will look.")]
    alone = [said(call("f"), content="I will look.")]
    assert one_by_one(alone) == alone


@pytest.mark.parametrize(
    ("content", "given"),
    [
        ('{"sunny": true}', {"sunny": True}),
        ("[1]", [1]),
        ("3", "3"),
        ('"x"', '"x"'),
        ("null", "null"),
        ("sunny", "sunny"),
        ("", ""),
        ('{"a": NaN}', '{"a": NaN}'),
        ("[" * 300 + "]" * 300, "[" * 300 + "]" * 300),
        ("[" * 99_999, "[" * 99_999),
    ],
)
def test_results_as_objects(content, given):
    messages = [said(call("f")), result(content), {**USER, "content": '{"a": 1}'}]
    assert one_by_one(messages) == messages
    told = one_by_one(messages, as_objects=True)
    assert [message["content"] for message in told] == ["", given, '{"a": 1}']
