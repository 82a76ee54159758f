"""``openai.OpenAI.responses``: text, streams, tools, models of answers."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.clients.talk import ABOUT_ANNA, CITY, QUESTION, USER, WEATHER
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("openai")

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city",
    "parameters": CITY,
    "strict": True,
}
COMMON: dict[str, Any] = {"model": "tgi", "temperature": 0, "max_output_tokens": 40}


class Person(BaseModel):
    """What the answer is about."""

    name: str
    age: int


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def test_text(client: OpenAI) -> None:
    answer = client.responses.create(input=QUESTION, **COMMON)
    assert "Paris" in answer.output_text
    assert answer.status == "completed"
    assert answer.id.startswith("resp_")
    assert answer.error is None
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_the_same_as_chat(client: OpenAI) -> None:
    chat = client.chat.completions.create(
        model="tgi", messages=[USER], temperature=0, max_tokens=40
    )
    answer = client.responses.create(input=[USER], **COMMON)
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    assert answer.usage.output_tokens == chat.usage.completion_tokens


def test_instructions_and_parts(client: OpenAI) -> None:
    message = {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
    answer = client.responses.create(
        input=[message], instructions="You are a helpful assistant.", **COMMON
    )
    assert "Paris" in answer.output_text
    assert answer.instructions == "You are a helpful assistant."


def test_too_short(client: OpenAI) -> None:
    answer = client.responses.create(input=QUESTION, **{**COMMON, "max_output_tokens": 2})
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_stream(client: OpenAI) -> None:
    events = list(client.responses.create(input=QUESTION, stream=True, **COMMON))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text
    assert "Paris" in "".join(deltas)


def test_stream_helper(client: OpenAI) -> None:
    with client.responses.stream(input=QUESTION, **COMMON) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == text
    assert final.usage.output_tokens > 0


def test_parse(client: OpenAI) -> None:
    answer = client.responses.parse(input=[ABOUT_ANNA], text_format=Person, **COMMON)
    assert answer.output_parsed == Person(name="Anna", age=31)


def test_parse_a_stream(client: OpenAI) -> None:
    with client.responses.stream(input=[ABOUT_ANNA], text_format=Person, **COMMON) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == Person(name="Anna", age=31)


def test_json_object(client: OpenAI) -> None:
    answer = client.responses.create(
        input=[ABOUT_ANNA], text={"format": {"type": "json_object"}}, **COMMON
    )
    assert json.loads(answer.output_text) == {"name": "Anna", "age": 31}


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "name": "get_weather"}, "auto"], ids=str
)
def test_tool(client: OpenAI, choice: Any) -> None:
    answer = client.responses.create(input=[WEATHER], tools=[TOOL], tool_choice=choice, **COMMON)
    call = answer.output[0]
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "Paris"}
    assert answer.status == "completed"


def test_tool_result(client: OpenAI) -> None:
    first = client.responses.create(input=[WEATHER], tools=[TOOL], tool_choice="required", **COMMON)
    call = first.output[0]
    result = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": '{"temperature": 21, "sky": "sunny"}',
    }
    answer = client.responses.create(input=[WEATHER, call, result], tools=[TOOL], **COMMON)
    assert "sunny" in answer.output_text


def test_streamed_tool(client: OpenAI) -> None:
    kinds, parts = [], []
    for event in client.responses.create(
        input=[WEATHER], tools=[TOOL], tool_choice="required", stream=True, **COMMON
    ):
        kinds.append(event.type)
        if event.type == "response.function_call_arguments.delta":
            parts.append(event.delta)
    assert json.loads("".join(parts)) == {"city": "Paris"}
    assert "response.function_call_arguments.done" in kinds
    assert "response.output_item.done" in kinds


def test_errors(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        client.responses.create(input=QUESTION, model="tgi", temperature=-1)
    with pytest.raises(openai.UnprocessableEntityError, match="web_search"):
        client.responses.create(input=QUESTION, tools=[{"type": "web_search"}], **COMMON)
    with pytest.raises(openai.UnprocessableEntityError, match="previous_response_id"):
        client.responses.create(input=QUESTION, previous_response_id="resp_1", **COMMON)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
