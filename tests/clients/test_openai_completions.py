"""``openai.OpenAI.completions``: echo, log-probabilities, several choices."""

from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.clients.talk import QUESTION
from tests.end_to_end.harness import Server

pytestmark = pytest.mark.client("openai")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def complete(client: OpenAI, **fields: Any) -> Any:
    request = {"model": "tgi", "prompt": QUESTION, "temperature": 0, "max_tokens": 24, **fields}
    return client.completions.create(**request)


def test_echo(client: OpenAI) -> None:
    answer = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == QUESTION + answer


def test_echo_in_a_stream(client: OpenAI) -> None:
    answer = complete(client).choices[0].text
    pieces = [chunk.choices[0].text for chunk in complete(client, echo=True, stream=True)]
    assert "".join(pieces) == QUESTION + answer


def test_logprobs(client: OpenAI) -> None:
    answer = complete(client, logprobs=2)
    found = answer.choices[0].logprobs
    count = len(found.tokens)
    assert count == len(found.token_logprobs) == len(found.text_offset) == len(found.top_logprobs)
    assert "".join(found.tokens).startswith(answer.choices[0].text)
    assert all(logprob <= 0 for logprob in found.token_logprobs)
    assert all(len(tops) >= 2 for tops in found.top_logprobs)
    assert found.text_offset[0] == 0
    assert found.text_offset[1] == len(found.tokens[0])


def test_logprobs_of_the_prompt(client: OpenAI) -> None:
    """How evaluations score a text: nothing generated, everything measured."""
    answer = complete(client, echo=True, logprobs=1, max_tokens=1)
    found = answer.choices[0].logprobs
    assert found.token_logprobs[0] is None
    assert all(logprob < 0 for logprob in found.token_logprobs[1:])
    assert "".join(found.tokens).endswith(answer.choices[0].text[len(QUESTION) :])


def test_two_choices(client: OpenAI) -> None:
    answer = complete(client, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].text == answer.choices[1].text == complete(client).choices[0].text


def test_two_choices_of_two_prompts(client: OpenAI) -> None:
    prompts = [QUESTION, "What is the capital of Italy?"]
    answer = complete(client, n=2, prompt=prompts)
    texts = {choice.index: choice.text for choice in answer.choices}
    assert sorted(texts) == [0, 1, 2, 3]
    assert all("Paris" in texts[index] for index in (0, 1))
    assert all("Rome" in texts[index] for index in (2, 3))


def test_best_of(client: OpenAI) -> None:
    answer = complete(client, best_of=2, temperature=1.5, seed=5)
    assert len(answer.choices) == 1
    assert answer.usage.completion_tokens > 2
