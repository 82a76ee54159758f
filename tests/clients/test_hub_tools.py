"""``huggingface_hub.InferenceClient`` with tools, as its own agents use them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import InferenceClient

from tests.clients.talk import GET_WEATHER, GREEDY, SET_TIMER, WEATHER
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("huggingface_hub")

NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module", params=["server", "tgi_server"])
def client(request: pytest.FixtureRequest) -> Iterator[InferenceClient]:
    """On both forms of chat answers."""
    server: Server = request.getfixturevalue(request.param)
    with InferenceClient(server.url, provider="hf-inference", token="x") as opened:
        yield opened


def ask(client: InferenceClient, messages: list[Any], **fields: Any) -> Any:
    return client.chat_completion(messages, tools=[GET_WEATHER, SET_TIMER], **GREEDY, **fields)


@pytest.mark.parametrize("choice", ["required", "get_weather", NAMED, "auto"], ids=str)
def test_tool(client: InferenceClient, choice: Any) -> None:
    message = ask(client, [WEATHER], tool_choice=choice).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_a_turn_of_an_agent(client: InferenceClient) -> None:
    """The stream is joined by the index of the calls, and the result is sent back."""
    joined: dict[int, dict[str, str]] = {}
    for chunk in ask(client, [WEATHER], stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            call = joined.setdefault(part.index, {"id": part.id, "name": "", "arguments": ""})
            call["name"] = call["name"] or part.function.name
            call["arguments"] += part.function.arguments
    (call,) = joined.values()
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    function = {"name": call["name"], "arguments": call["arguments"]}
    made = {"id": call["id"], "type": "function", "function": function}
    result = {
        "role": "tool",
        "tool_call_id": call["id"],
        "name": call["name"],
        "content": '{"temperature": 21, "sky": "sunny"}',
    }
    said = ask(
        client, [WEATHER, {"role": "assistant", "content": "", "tool_calls": [made]}, result]
    )
    assert "sunny" in said.choices[0].message.content
