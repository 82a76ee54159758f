"""``openai.OpenAI``: chat completions, completions, models, errors."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.clients.talk import GREEDY, QUESTION, USER
from tests.end_to_end.harness import Server, running

pytestmark = pytest.mark.client("openai")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def keyed() -> Iterator[Server]:
    """A server with a key."""
    with running("--api-key", "right") as started:
        yield started


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    (choice,) = answer.choices
    assert "Paris" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_stream(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    *chunks, last = client.chat.completions.create(
        model="tgi",
        messages=[USER],
        stream=True,
        stream_options={"include_usage": True},
        **GREEDY,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert {chunk.usage for chunk in chunks} == {None}
    assert len({chunk.id for chunk in chunks}) == 1
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens


def test_what_vllm_adds(client: OpenAI) -> None:
    """By ``extra_body``, as its documentation says."""
    likeliest = client.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    drawn = client.chat.completions.create(
        model="tgi", messages=[USER], max_tokens=40, extra_body={"min_p": 1.0, "top_k": 50}
    )
    assert drawn.choices[0].message.content == likeliest.choices[0].message.content
    answers = ["Paris", "Rome"]
    (choice,) = client.chat.completions.create(
        model="tgi", messages=[USER], extra_body={"structured_outputs": {"choice": answers}}
    ).choices
    assert choice.message.content in answers
    assert choice.finish_reason == "stop"


def test_chat_stream_closed_early(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="tgi", messages=[USER], stream=True, max_tokens=500
    ) as stream:
        assert next(iter(stream)).object == "chat.completion.chunk"
    answer = client.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    assert "Paris" in answer.choices[0].message.content


def test_chat_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tgi", messages=[USER], logprobs=True, top_logprobs=2, **GREEDY
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert bytes(token.bytes).decode() == token.token
        assert token.logprob == token.top_logprobs[0].logprob
        assert len(token.top_logprobs) >= 2


def test_stop_string(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tgi", messages=[USER], stop=" France", **GREEDY
    ).choices[0]
    assert answer.message.content == "The capital of"
    assert answer.finish_reason == "stop"


def test_length(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tgi", messages=[USER], max_completion_tokens=2, temperature=0
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_harmless_fields(client: OpenAI) -> None:
    """What applications send although it changes nothing."""
    answer = client.chat.completions.create(
        model="any-name",
        messages=[{"role": "system", "content": "You are a helpful assistant."}, USER],
        n=1,
        top_p=1,
        user="someone",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        response_format={"type": "text"},
        **GREEDY,
    )
    assert "Paris" in answer.choices[0].message.content


def test_content_parts(client: OpenAI) -> None:
    parts = [{"type": "text", "text": QUESTION}]
    answer = client.chat.completions.create(
        model="tgi", messages=[{"role": "user", "content": parts}], **GREEDY
    )
    assert "Paris" in answer.choices[0].message.content


def test_completion(client: OpenAI) -> None:
    answer = client.completions.create(model="tgi", prompt=QUESTION, **GREEDY)
    assert "Paris" in answer.choices[0].text
    assert answer.object == "text_completion"
    assert answer.usage.completion_tokens > 0


def test_completion_of_several_prompts(client: OpenAI) -> None:
    prompts = [QUESTION, "What is the capital of Italy?"]
    answer = client.completions.create(model="tgi", prompt=prompts, **GREEDY)
    texts = {choice.index: choice.text for choice in answer.choices}
    assert "Paris" in texts[0]
    assert "Rome" in texts[1]
    pieces = ["", ""]
    for chunk in client.completions.create(model="tgi", prompt=prompts, stream=True, **GREEDY):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
    assert pieces == [texts[0], texts[1]]


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model


def test_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no-such-model")
    assert caught.value.body["type"] == "not_found_error"


def test_wrong_value(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="temperature") as caught:
        client.chat.completions.create(model="tgi", messages=[USER], temperature=-1)
    assert caught.value.body["code"] == "validation"


def test_wrong_value_in_a_stream(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="top_p"):
        client.chat.completions.create(model="tgi", messages=[USER], top_p=2, stream=True)


def test_too_many_prompts(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="prompts"):
        client.completions.create(model="tgi", prompt=["a"] * 5)


def test_key(keyed: Server) -> None:
    wrong = OpenAI(base_url=f"{keyed.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    right = OpenAI(base_url=f"{keyed.url}/v1", api_key="right", max_retries=0)
    answer = right.chat.completions.create(model="tgi", messages=[USER], **GREEDY)
    assert "Paris" in answer.choices[0].message.content
