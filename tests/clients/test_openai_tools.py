"""``openai.OpenAI`` with tools: forced and free calls, streams, results in the conversation."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.clients.talk import CITY, GET_WEATHER, GREEDY, SET_TIMER, USER, WEATHER, function
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("openai")

TOOLS = [GET_WEATHER, SET_TIMER]
NAMED = {"type": "function", "function": {"name": "set_timer"}}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, **fields: Any) -> Any:
    request = {"model": "tgi", "messages": [WEATHER], "tools": TOOLS, **GREEDY, **fields}
    return client.chat.completions.create(**request)


def test_required(client: OpenAI) -> None:
    (choice,) = ask(client, tool_choice="required").choices
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert call.type == "function"
    assert call.id
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_named(client: OpenAI) -> None:
    (choice,) = ask(client, tool_choice=NAMED).choices
    (call,) = choice.message.tool_calls
    assert call.function.name == "set_timer"
    assert isinstance(json.loads(call.function.arguments)["minutes"], int)


def test_auto_calls(client: OpenAI) -> None:
    (choice,) = ask(client).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "get_weather"


def test_none_does_not_call(client: OpenAI) -> None:
    (choice,) = ask(client, messages=[USER], tool_choice="none").choices
    assert choice.message.tool_calls is None
    assert "Paris" in choice.message.content
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize("choice", ["auto", "required", NAMED])
def test_streamed_deltas_are_json_in_the_end(client: OpenAI, choice: Any) -> None:
    whole = ask(client, tool_choice=choice).choices[0].message.tool_calls
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    identities: dict[int, str] = {}
    reasons = []
    for chunk in ask(client, tool_choice=choice, stream=True):
        reasons.append(chunk.choices[0].finish_reason)
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.id:
                assert part.index not in identities
                identities[part.index] = part.id
                names[part.index] = part.function.name
            arguments[part.index] = arguments.get(part.index, "") + part.function.arguments
    assert [reason for reason in reasons if reason] == ["tool_calls"]
    assert [names[i] for i in sorted(names)] == [call.function.name for call in whole]
    streamed = [json.loads(arguments[i]) for i in sorted(arguments)]
    assert streamed == [json.loads(call.function.arguments) for call in whole]


def test_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="tgi", messages=[WEATHER], tools=TOOLS, tool_choice="required", **GREEDY
    ) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.role == "assistant"
    assert message.tool_calls[0].function.name == "get_weather"
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}


def test_strict_tool_is_parsed(client: OpenAI) -> None:
    strict = {"type": "function", "function": {**GET_WEATHER["function"], "strict": True}}
    answer = client.chat.completions.parse(
        model="tgi", messages=[WEATHER], tools=[strict], tool_choice="required", **GREEDY
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.parsed_arguments == {"city": "Paris"}


def test_a_call_and_its_result_in_the_conversation(client: OpenAI) -> None:
    first = ask(client, tool_choice="required").choices[0].message
    result = {
        "role": "tool",
        "tool_call_id": first.tool_calls[0].id,
        "content": '{"temperature": 21, "sky": "sunny"}',
    }
    said = ask(client, messages=[WEATHER, first, result]).choices[0]
    assert said.finish_reason == "stop"
    assert "sunny" in said.message.content


def test_unknown_tool(client: OpenAI) -> None:
    unknown = {"type": "function", "function": {"name": "no_such_tool"}}
    with pytest.raises(openai.UnprocessableEntityError, match=r"no_such_tool|tool_choice"):
        ask(client, tool_choice=unknown)


def test_wrong_schema(client: OpenAI) -> None:
    broken = function("broken", "", {**CITY, "properties": {"city": {"type": "no-such-type"}}})
    with pytest.raises(openai.UnprocessableEntityError, match=r"tools|schema"):
        ask(client, tools=[broken], tool_choice="required")
