"""``openai.OpenAI``'s helpers ``.stream()`` and ``.parse()``, and several choices."""

import json
from collections.abc import Iterator

import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.clients.talk import ABOUT_ANNA, GREEDY, USER
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("openai")


class Person(BaseModel):
    """What the answer is about."""

    name: str
    age: int


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def test_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="tgi", messages=[USER], stream_options={"include_usage": True}, **GREEDY
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.role == "assistant"
    assert "".join(deltas) == message.content
    assert "Paris" in message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.completion_tokens > 0


def test_stream_helper_with_logprobs(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="tgi", messages=[USER], logprobs=True, **GREEDY
    ) as stream:
        final = stream.get_final_completion()
    tokens = [token.token for token in final.choices[0].logprobs.content]
    assert "".join(tokens).startswith(final.choices[0].message.content)


def test_parse(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tgi", messages=[ABOUT_ANNA], response_format=Person, **GREEDY
    )
    assert answer.choices[0].message.parsed == Person(name="Anna", age=31)
    assert answer.choices[0].message.refusal is None


def test_parse_a_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="tgi", messages=[ABOUT_ANNA], response_format=Person, **GREEDY
    ) as stream:
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.parsed == Person(name="Anna", age=31)
    assert json.loads(message.content) == {"name": "Anna", "age": 31}


def test_two_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="tgi", messages=[USER], n=2, **GREEDY)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    assert all("Paris" in choice.message.content for choice in answer.choices)
    alone = client.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    assert answer.usage.prompt_tokens == alone.usage.prompt_tokens
    assert answer.usage.completion_tokens == 2 * alone.usage.completion_tokens


def test_two_choices_with_a_seed_are_repeatable(client: OpenAI) -> None:
    def drawn() -> list[str]:
        answer = client.chat.completions.create(
            model="tgi", messages=[USER], n=2, seed=11, temperature=1.5, max_tokens=20
        )
        return [choice.message.content for choice in answer.choices]

    first = drawn()
    assert len(first) == 2
    assert drawn() == first


def test_two_streamed_choices(client: OpenAI) -> None:
    with client.chat.completions.stream(model="tgi", messages=[USER], n=2, **GREEDY) as stream:
        final = stream.get_final_completion()
    texts = {choice.index: choice.message.content for choice in final.choices}
    assert set(texts) == {0, 1}
    assert all("Paris" in text for text in texts.values())
