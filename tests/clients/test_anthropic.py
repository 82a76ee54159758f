"""``anthropic.Anthropic``: messages, streams, tools, counting, errors."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.clients.talk import CITY, MINUTES, USER, WEATHER
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("anthropic")

TOOLS = [
    {"name": "get_weather", "description": "Get the weather of a city", "input_schema": CITY},
    {"name": "set_timer", "description": "Start a timer", "input_schema": MINUTES},
]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Anthropic]:
    with Anthropic(base_url=server.url, api_key="unused", max_retries=0) as opened:
        yield opened


def request(**fields: Any) -> dict[str, Any]:
    """A greedy one; the client itself knows no temperature any more."""
    greedy = {"temperature": 0}
    return {"model": "tgi", "max_tokens": 40, "messages": [USER], "extra_body": greedy, **fields}


def ask(client: Anthropic, **fields: Any) -> Any:
    return client.messages.create(**request(**fields))


def test_text(client: Anthropic) -> None:
    answer = ask(client)
    (block,) = answer.content
    assert block.type == "text"
    assert "Paris" in block.text
    assert answer.stop_reason == "end_turn"
    assert answer.role == "assistant"
    assert answer.id.startswith("msg_")
    assert answer.usage.output_tokens > 0


def test_system_and_blocks(client: Anthropic) -> None:
    blocks = [{"type": "text", "text": USER["content"]}]
    answer = ask(
        client,
        system=[{"type": "text", "text": "You are a helpful assistant."}],
        messages=[{"role": "user", "content": blocks}],
    )
    assert "Paris" in answer.content[0].text


def test_stop_reasons(client: Anthropic) -> None:
    short = ask(client, max_tokens=2)
    assert short.stop_reason == "max_tokens"
    assert short.usage.output_tokens == 2
    stopped = ask(client, stop_sequences=[" France"])
    assert stopped.stop_reason == "stop_sequence"
    assert stopped.stop_sequence == " France"
    assert stopped.content[0].text == "The capital of"


def test_raw_stream(client: Anthropic) -> None:
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events if event.type != "content_block_delta"]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0].message.usage.input_tokens > 0
    assert events[-2].delta.stop_reason == "end_turn"


def test_stream_helper(client: Anthropic) -> None:
    with client.messages.stream(**request()) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    whole = ask(client)
    assert text == final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.input_tokens == whole.usage.input_tokens


@pytest.mark.parametrize(
    "choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}, {"type": "auto"}], ids=str
)
def test_tool(client: Anthropic, choice: Any) -> None:
    answer = ask(client, messages=[WEATHER], tools=TOOLS, tool_choice=choice)
    call = answer.content[-1]
    assert call.type == "tool_use"
    assert call.name == "get_weather"
    assert call.input == {"city": "Paris"}
    assert answer.stop_reason == "tool_use"


def test_streamed_tool(client: Anthropic) -> None:
    fields = request(messages=[WEATHER], tools=TOOLS, tool_choice={"type": "any"})
    with client.messages.stream(**fields) as stream:
        final = stream.get_final_message()
    assert final.content[-1].name == "get_weather"
    assert final.content[-1].input == {"city": "Paris"}
    assert final.stop_reason == "tool_use"


def test_tool_result(client: Anthropic) -> None:
    first = ask(client, messages=[WEATHER], tools=TOOLS, tool_choice={"type": "any"})
    result = {
        "type": "tool_result",
        "tool_use_id": first.content[-1].id,
        "content": '{"temperature": 21, "sky": "sunny"}',
    }
    messages = [
        WEATHER,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    answer = ask(client, messages=messages, tools=TOOLS)
    assert "sunny" in answer.content[0].text
    assert answer.stop_reason == "end_turn"


def test_count_tokens(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="tgi", messages=[USER])
    assert counted.input_tokens == ask(client).usage.input_tokens
    more = client.messages.count_tokens(model="tgi", messages=[USER], tools=TOOLS)
    assert more.input_tokens > counted.input_tokens


def test_errors(client: Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="temperature") as caught:
        ask(client, extra_body={"temperature": -1})
    assert caught.value.status_code in (400, 422)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"
    image = {"type": "image", "source": {"type": "url", "url": "data:image/png;base64,AAAA"}}
    with pytest.raises(anthropic.APIStatusError, match="image"):
        ask(client, messages=[{"role": "user", "content": [image]}])
    with pytest.raises(anthropic.APIStatusError, match="tool"):
        ask(client, tools=TOOLS, tool_choice={"type": "tool", "name": "no_such_tool"})


def test_wrong_value_in_a_stream(client: Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError, match="max_tokens"):
        ask(client, max_tokens=0, stream=True)


@pytest.mark.anyio
async def test_async(server: Server) -> None:
    async with AsyncAnthropic(base_url=server.url, api_key="unused", max_retries=0) as client:
        whole = await client.messages.create(**request())
        async with client.messages.stream(**request()) as stream:
            text = "".join([piece async for piece in stream.text_stream])
    assert text == whole.content[0].text
    assert "Paris" in text
