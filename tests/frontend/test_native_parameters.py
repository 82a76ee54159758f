"""The native routes' parameters: what is meant if nothing is said, and what the worker is told."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, serve


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def parameters(server: Server, **values: Any) -> dict[str, Any]:
    """The body of the only Submit that these parameters lead to."""
    answer = server.post("/generate", {"inputs": "hello", "parameters": values})
    assert answer.status_code == 200, answer.text
    return server.pipeline.of(Submit)[-1].spec


def test_omitted_parameters_mean_sampling(server: Server) -> None:
    server.post("/generate", {"inputs": "a"})
    server.post("/generate", {"inputs": "a", "parameters": {}})
    first, second = (message.spec.sampling for message in server.pipeline.of(Submit))
    assert (first.do_sample, second.do_sample) == (True, False)


@pytest.mark.parametrize(
    ("given", "draws"),
    [
        ({}, False),
        ({"do_sample": True}, True),
        ({"temperature": 1.0}, False),
        ({"temperature": 0.7}, True),
        ({"temperature": 2}, True),
        ({"top_k": 3}, True),
        ({"top_p": 0.9}, True),
        ({"typical_p": 0.9}, True),
        ({"min_p": 0.1}, True),
        ({"repetition_penalty": 1.2, "frequency_penalty": 0.1}, False),
    ],
)
def test_when_sampling_is_on(server: Server, given: dict[str, Any], draws: bool) -> None:
    spec = parameters(server, **given)
    assert spec.sampling.do_sample is draws
    if not draws:
        assert spec.sampling.seed == 0


@pytest.mark.parametrize(
    "given",
    [
        {"top_k": 1},
        {"top_p": 0.001},
        {"temperature": 0.001},
        {"repetition_penalty": 0.001},
        {"min_p": 1.0},
        {"frequency_penalty": -2.0},
        {"frequency_penalty": 2.0},
        {"top_n_tokens": 5},
        {"best_of": 2, "do_sample": True},
        {"stop": ["a", "b", "c", "d" * 1024]},
        {"truncate": 1},
        {"truncate": 1024},
        {"max_new_tokens": 1},
    ],
)
def test_the_least_and_the_most_that_is_allowed(server: Server, given: dict[str, Any]) -> None:
    answer = server.post("/generate", {"inputs": "hello", "parameters": given})
    assert answer.status_code == 200, answer.text


def test_parameters_reach_the_worker(server: Server) -> None:
    spec = parameters(
        server,
        temperature=0.5,
        repetition_penalty=1.5,
        frequency_penalty=-1,
        top_k=7,
        top_p=0.5,
        typical_p=0.25,
        min_p=0.125,
        seed=2**64 - 1,
        top_n_tokens=3,
        max_new_tokens=9,
        watermark=True,
        cache_salt="s" * 256,
    )
    sampling = spec.sampling
    assert spec.max_new_tokens == 9
    assert spec.cache_salt == "s" * 256
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.5, 7, 0.5)
    assert (sampling.typical_p, sampling.repetition_penalty) == (0.25, 1.5)
    assert sampling.min_p == 0.125
    assert (sampling.frequency_penalty, sampling.seed) == (-1.0, 2**64 - 1)
    assert (sampling.top_n_tokens, sampling.watermark) == (3, True)
    assert spec.stop_token_ids == server.services.tokenizer.stop_token_ids


def test_explicit_nulls_and_harmless_values(server: Server) -> None:
    nulls = dict.fromkeys(
        [
            "best_of", "temperature", "repetition_penalty", "frequency_penalty", "top_k", "top_p",
            "typical_p", "max_new_tokens", "return_full_text", "truncate", "seed", "top_n_tokens",
            "grammar", "adapter_id",
        ]
    )  # fmt: skip
    assert parameters(server, **nulls, watermark=False, stop=[""])
    assert parameters(server, best_of=0)


@pytest.mark.parametrize(
    ("kind", "value", "grammar"),
    [
        ("json", {"type": "object"}, 'json_schema: {"type":"object"}'),
        ("json_object", '{"type": "object"}', 'json_schema: {"type":"object"}'),
        ("json_schema", {"schema": {"type": "null"}}, 'json_schema: {"type":"null"}'),
        ("regex", "a+", "regex: a+"),
        ("lark", "start: /a/", "lark: start: /a/"),
    ],
)
def test_grammars(server: Server, kind: str, value: Any, grammar: str) -> None:
    given = {"type": kind, "value": value}
    assert parameters(server, grammar=given).grammar == grammar
    assert parameters(server).grammar == ""
    before = len(server.pipeline.of(Submit))
    assert parameters(server, grammar=given, best_of=2, do_sample=True).grammar == grammar
    assert [m.spec.grammar for m in server.pipeline.of(Submit)[before:]] == [grammar] * 2


def test_integers_may_stand_for_floats(server: Server) -> None:
    assert parameters(server, temperature=2, repetition_penalty=1).sampling.temperature == 2.0
