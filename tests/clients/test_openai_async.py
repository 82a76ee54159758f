"""``openai.AsyncOpenAI``: the same in brief, and many at once."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from tests.clients.talk import GREEDY, QUESTION, USER
from tests.end_to_end.harness import Server

pytestmark = [pytest.mark.client("openai"), pytest.mark.anyio]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as opened:
        yield opened


async def test_chat(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tgi", messages=[USER], logprobs=True, **GREEDY
    )
    assert "Paris" in answer.choices[0].message.content
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens


async def test_chat_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="tgi",
        messages=[USER],
        stream=True,
        stream_options={"include_usage": True},
        **GREEDY,
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert "Paris" in text
    assert chunks[-1].usage.completion_tokens > 0


async def test_streams_side_by_side(client: AsyncOpenAI) -> None:
    async def text(country: str) -> str:
        message = {"role": "user", "content": f"What is the capital of {country}?"}
        stream = await client.chat.completions.create(
            model="tgi", messages=[message], stream=True, **GREEDY
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    capitals = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo"}
    texts = await asyncio.gather(*(text(country) for country in [*capitals] * 4))
    assert all(city in said for city, said in zip([*capitals.values()] * 4, texts, strict=True))


async def test_stop_string(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="tgi", messages=[USER], stop=" France", **GREEDY
    )
    assert answer.choices[0].message.content == "The capital of"


async def test_completions(client: AsyncOpenAI) -> None:
    prompts = [QUESTION, "What is the capital of Italy?"]
    answer = await client.completions.create(model="tgi", prompt=prompts, **GREEDY)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    stream = await client.completions.create(model="tgi", prompt=QUESTION, stream=True, **GREEDY)
    assert "Paris" in "".join([chunk.choices[0].text async for chunk in stream])


async def test_models(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert await client.models.retrieve(models[0].id) == models[0]


async def test_errors(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no-such-model")
    with pytest.raises(openai.UnprocessableEntityError, match="temperature"):
        await client.chat.completions.create(model="tgi", messages=[USER], temperature=-1)
