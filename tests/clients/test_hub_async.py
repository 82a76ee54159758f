"""``huggingface_hub.AsyncInferenceClient``: the same surface, asynchronously."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError

from tests.clients.talk import GREEDY, QUESTION, USER
from tests.end_to_end.harness import Server

pytestmark = [pytest.mark.client("huggingface_hub"), pytest.mark.anyio]


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncInferenceClient]:
    async with AsyncInferenceClient(server.url, provider="hf-inference", token="x") as opened:
        yield opened


async def generate(client: AsyncInferenceClient, **parameters: Any) -> Any:
    return await client.text_generation(QUESTION, **{"max_new_tokens": 24, **parameters})


async def test_text(client: AsyncInferenceClient) -> None:
    assert "Paris" in await generate(client)


async def test_details(client: AsyncInferenceClient) -> None:
    answer = await generate(client, details=True, top_n_tokens=2, return_full_text=False)
    assert answer.details.generated_tokens == len(answer.details.tokens)
    assert len(answer.details.top_tokens) == len(answer.details.tokens)
    assert "Paris" in answer.generated_text


async def test_stream(client: AsyncInferenceClient) -> None:
    whole = await generate(client, details=True)
    pieces = [piece async for piece in await generate(client, stream=True)]
    assert pieces == [token.text for token in whole.details.tokens]


async def test_stream_with_details(client: AsyncInferenceClient) -> None:
    events = [event async for event in await generate(client, stream=True, details=True)]
    assert events[-1].details.generated_tokens == len(events)
    assert "Paris" in events[-1].generated_text


async def test_stop_and_seed(client: AsyncInferenceClient) -> None:
    answer = await generate(client, stop=["France"], details=True, do_sample=True, seed=1)
    assert answer.details.seed == 1
    assert answer.details.finish_reason in ("stop_sequence", "length", "eos_token")
    stopped = await generate(client, stop=["France"], details=True)
    assert stopped.details.finish_reason == "stop_sequence"


async def test_best_of(client: AsyncInferenceClient) -> None:
    answer = await generate(client, best_of=2, do_sample=True, details=True)
    assert len(answer.details.best_of_sequences) == 1


async def test_validation_error(client: AsyncInferenceClient) -> None:
    with pytest.raises(ValidationError, match="top_p"):
        await generate(client, top_p=1.5)


async def test_validation_error_in_a_stream(client: AsyncInferenceClient) -> None:
    with pytest.raises(ValidationError, match="top_p"):
        _ = [piece async for piece in await generate(client, top_p=1.5, stream=True)]


async def test_chat(client: AsyncInferenceClient) -> None:
    answer = await client.chat_completion([USER], logprobs=True, **GREEDY)
    assert "Paris" in answer.choices[0].message.content
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens


async def test_chat_stream(client: AsyncInferenceClient) -> None:
    whole = await client.chat_completion([USER], **GREEDY)
    stream = await client.chat_completion([USER], stream=True, **GREEDY)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content


async def test_many_at_once(client: AsyncInferenceClient) -> None:
    calls = [client.chat_completion([USER], **GREEDY) for _ in range(16)]
    texts = {answer.choices[0].message.content for answer in await asyncio.gather(*calls)}
    assert len(texts) == 1


async def test_chat_error(client: AsyncInferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match="temperature"):
        await client.chat_completion([USER], temperature=-1)


async def test_information(client: AsyncInferenceClient) -> None:
    assert (await client.get_endpoint_info())["max_best_of"] == 2
    assert await client.health_check() is True
