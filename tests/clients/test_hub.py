"""``huggingface_hub.InferenceClient``: text generation, chat, information, errors."""

from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError

from tests.clients.talk import GREEDY, QUESTION, USER
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("huggingface_hub")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[InferenceClient]:
    """With a token, which a server without a key must not mind."""
    with InferenceClient(server.url, provider="hf-inference", token="some-token") as opened:
        yield opened


def generate(client: InferenceClient, **parameters: Any) -> Any:
    return client.text_generation(QUESTION, **{"max_new_tokens": 24, **parameters})


def test_text(client: InferenceClient) -> None:
    assert "Paris" in generate(client)


def test_full_text(client: InferenceClient) -> None:
    answer = generate(client, return_full_text=False)
    assert generate(client, return_full_text=True) == QUESTION + answer


def test_details(client: InferenceClient) -> None:
    answer = generate(client, details=True, return_full_text=False)
    details = answer.details
    assert details.finish_reason == "eos_token"
    assert details.generated_tokens == len(details.tokens)
    assert details.seed is None
    assert details.tokens[-1].special
    shown = [token.text for token in details.tokens if not token.special]
    assert "".join(shown) == answer.generated_text
    assert all(token.logprob <= 0 for token in details.tokens)


def test_prompt_details(client: InferenceClient) -> None:
    prefill = generate(client, details=True, decoder_input_details=True).details.prefill
    assert prefill[0].logprob is None
    assert all(token.logprob < 0 for token in prefill[1:])


def test_stream(client: InferenceClient) -> None:
    whole = generate(client, details=True, return_full_text=False)
    pieces = list(generate(client, stream=True))
    assert pieces == [token.text for token in whole.details.tokens]


def test_stream_with_details(client: InferenceClient) -> None:
    events = list(generate(client, stream=True, details=True, return_full_text=False))
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    assert {event.generated_text for event in events[:-1]} == {None}
    assert "Paris" in events[-1].generated_text
    assert events[-1].details.finish_reason == "eos_token"
    assert events[-1].details.generated_tokens == len(events)
    assert events[-1].details.input_length > 0


def test_stop(client: InferenceClient) -> None:
    answer = generate(client, stop=["France"], details=True)
    assert answer.details.finish_reason == "stop_sequence"
    assert answer.generated_text.endswith("France")


def test_seed(client: InferenceClient) -> None:
    answers = [generate(client, do_sample=True, seed=7, details=True) for _ in range(2)]
    assert answers[0].generated_text == answers[1].generated_text
    assert [answer.details.seed for answer in answers] == [7, 7]


def test_top_tokens(client: InferenceClient) -> None:
    details = generate(client, top_n_tokens=3, details=True).details
    assert len(details.top_tokens) == len(details.tokens)
    for token, tops in zip(details.tokens, details.top_tokens, strict=True):
        assert len(tops) >= 3
        logprobs = [top["logprob"] for top in tops]
        assert tops[0]["id"] == token.id
        assert logprobs == sorted(logprobs, reverse=True)


def test_best_of(client: InferenceClient) -> None:
    details = generate(client, best_of=2, do_sample=True, details=True).details
    (other,) = details.best_of_sequences
    assert other.generated_tokens == len(other.tokens)
    assert other.seed != details.seed


@pytest.mark.parametrize("stream", [False, True])
def test_validation_error(client: InferenceClient, stream: bool) -> None:
    with pytest.raises(ValidationError, match="top_p"):
        list(generate(client, top_p=1.5, stream=stream))


def test_chat(client: InferenceClient) -> None:
    answer = client.chat_completion([USER], **GREEDY)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert "Paris" in choice.message.content
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer.model == "dummy"


def test_chat_as_openai_names_it(client: InferenceClient) -> None:
    answer = client.chat.completions.create([USER], **GREEDY)
    assert "Paris" in answer.choices[0].message.content


def test_chat_stream(client: InferenceClient) -> None:
    whole = client.chat_completion([USER], **GREEDY)
    options = {"include_usage": True}
    *chunks, last = client.chat_completion([USER], stream=True, stream_options=options, **GREEDY)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage.total_tokens == whole.usage.total_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def test_chat_logprobs(client: InferenceClient) -> None:
    answer = client.chat_completion([USER], logprobs=True, top_logprobs=2, **GREEDY)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    assert all(len(token.top_logprobs) >= 2 for token in content)
    assert content[0].token == content[0].top_logprobs[0].token


def test_chat_stop(client: InferenceClient) -> None:
    answer = client.chat_completion([USER], stop=["France", "Spain"], **GREEDY)
    assert "Paris" not in answer.choices[0].message.content


def test_chat_seed(client: InferenceClient) -> None:
    texts = {
        client.chat_completion([USER], seed=3, temperature=1.5, max_tokens=20)
        .choices[0]
        .message.content
        for _ in range(2)
    }
    assert len(texts) == 1


def test_chat_error(client: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match="temperature") as caught:
        client.chat_completion([USER], temperature=-1)
    assert caught.value.response.status_code == 422


def test_endpoint_info(client: InferenceClient) -> None:
    info = client.get_endpoint_info()
    assert info["max_total_tokens"] > info["max_input_tokens"]
    assert info["router"] == "text-generation-router"


def test_health(client: InferenceClient) -> None:
    assert client.health_check() is True
