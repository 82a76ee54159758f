"""The native routes of a running server, against the contract and against transformers."""

import math

import pytest

from tests.end_to_end.harness import Server, together
from tests.end_to_end.reference import Reference

QUESTION = "What is the capital of France?"
PROMPTS = [
    QUESTION,
    "The capital of Japan is",
    "2 + 3 =",
    "Hello",
    "What is 7 plus 8?",
    "Tell me something about colours. " * 12,
    "a",
    "ünïcödé 😀 text",
]


def token_ids(answer: dict) -> list[int]:
    return [token["id"] for token in answer["details"]["tokens"]]


def test_built_in_model_knows_paris(server: Server) -> None:
    answer = server.generate(QUESTION, max_new_tokens=24)
    assert "Paris" in answer["generated_text"]
    assert set(answer) == {"generated_text"}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_equals_transformers(server: Server, reference: Reference, prompt: str) -> None:
    expected = reference.greedy(reference.ids(prompt), 40)
    answer = server.generate(prompt, max_new_tokens=40, details=True)
    assert token_ids(answer) == expected.ids
    got = [token["logprob"] for token in answer["details"]["tokens"]]
    assert got == pytest.approx(expected.logprobs, abs=1e-4)
    assert answer["details"]["seed"] is None


def test_greedy_is_the_same_in_a_busy_batch(server: Server, reference: Reference) -> None:
    """Every request beside many others, twice: the second time from the prefix cache."""
    prompts = [f"{PROMPTS[i % len(PROMPTS)]} {i % 3}" for i in range(24)]
    expected = [reference.greedy(reference.ids(p), 12 + i) for i, p in enumerate(prompts)]
    for _ in range(2):
        answers = together(
            len(prompts),
            lambda i: server.generate(prompts[i], max_new_tokens=12 + i, details=True),
        )
        assert [token_ids(a) for a in answers] == [e.ids for e in expected]


def test_long_prompts_hit_the_prefix_cache(server: Server, reference: Reference) -> None:
    prompt = " ".join(f"Line {i} of a long text." for i in range(60))
    expected = reference.greedy(reference.ids(prompt), 10).ids
    cold = server.generate(prompt, max_new_tokens=10, details=True)
    before = server.metrics()
    warm = server.generate(prompt, max_new_tokens=10, details=True)
    after = server.metrics()
    assert token_ids(cold) == token_ids(warm) == expected
    hits = {name for name in after if "prefix" in name and after[name] > before.get(name, 0)}
    assert hits


def test_prefill_logprobs(server: Server, reference: Reference) -> None:
    ids = reference.ids(QUESTION)
    answer = server.generate(QUESTION, max_new_tokens=1, decoder_input_details=True)
    prefill = answer["details"]["prefill"]
    assert [token["id"] for token in prefill] == ids
    assert prefill[0]["logprob"] is None
    got = [token["logprob"] for token in prefill[1:]]
    assert got == pytest.approx(reference.prompt_logprobs(ids), abs=1e-4)


def test_stream_equals_the_whole_answer(server: Server) -> None:
    parameters = {"max_new_tokens": 24, "details": True}
    whole = server.generate(QUESTION, **parameters)
    answer = server.post("/generate_stream", {"inputs": QUESTION, "parameters": parameters})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    events = answer.events()
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert [event["token"]["id"] for event in events] == token_ids(whole)
    assert [e["generated_text"] for e in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["generated_text"] == whole["generated_text"]
    details = events[-1]["details"]
    assert details["finish_reason"] == whole["details"]["finish_reason"]
    assert details["generated_tokens"] == len(events)
    text = "".join(e["token"]["text"] for e in events if not e["token"]["special"])
    assert text == whole["generated_text"]


def test_root_answers_a_list_and_full_text(server: Server) -> None:
    answer = server.post("/", {"inputs": QUESTION, "parameters": {"max_new_tokens": 5}})
    assert answer.status == 200
    (only,) = answer.json()
    assert only["generated_text"].startswith(QUESTION)
    streamed = server.post(
        "/", {"inputs": QUESTION, "stream": True, "parameters": {"max_new_tokens": 5}}
    )
    assert streamed.events()[-1]["generated_text"] == only["generated_text"]


def test_headers(server: Server) -> None:
    answer = server.post("/generate", {"inputs": QUESTION, "parameters": {"max_new_tokens": 5}})
    headers = answer.headers
    total, *parts = (
        int(headers[f"x-{name}-time"]) for name in ("total", "validation", "queue", "inference")
    )
    assert 0 < total <= sum(parts) + 3  # each is cut to whole milliseconds
    assert sum(parts) <= total
    assert int(headers["x-generated-tokens"]) == 5
    assert int(headers["x-compute-characters"]) == len(QUESTION)
    assert float(headers["x-compute-time"]) > 0
    assert int(headers["x-time-per-token"]) >= 0
    assert int(headers["x-prompt-tokens"]) > 0


def test_sampling_is_reproducible(server: Server) -> None:
    parameters = {"max_new_tokens": 30, "do_sample": True, "temperature": 1.5, "details": True}
    first = server.generate("Tell me", seed=7, **parameters)
    again = together(8, lambda _: server.generate("Tell me", seed=7, **parameters))
    other = server.generate("Tell me", seed=8, **parameters)
    assert {tuple(token_ids(a)) for a in again} == {tuple(token_ids(first))}
    assert token_ids(other) != token_ids(first)
    assert first["details"]["seed"] == 7
    unseeded = server.generate("Tell me", **parameters)
    assert isinstance(unseeded["details"]["seed"], int)


def test_best_of_and_top_tokens(server: Server) -> None:
    answer = server.generate(
        "Tell me", best_of=2, do_sample=True, temperature=1.5, max_new_tokens=12, top_n_tokens=3,
        details=True,
    )  # fmt: skip
    details = answer["details"]
    (other,) = details["best_of_sequences"]
    mean = [
        math.fsum(t["logprob"] for t in d["tokens"]) / len(d["tokens"]) for d in (details, other)
    ]
    assert mean[0] >= mean[1]
    assert all(len(candidates) >= 3 for candidates in details["top_tokens"])
    for candidates in details["top_tokens"]:
        values = [candidate["logprob"] for candidate in candidates]
        assert values == sorted(values, reverse=True)


def test_stop_sequence_is_kept_and_cut(server: Server) -> None:
    plain = server.generate(QUESTION, max_new_tokens=24)["generated_text"]
    stop = plain[3:7]
    answer = server.generate(QUESTION, max_new_tokens=24, stop=[stop], details=True)
    assert answer["generated_text"] == plain[: plain.index(stop) + len(stop)]
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_tokenize(server: Server, reference: Reference) -> None:
    answer = server.post("/tokenize", {"inputs": "Hé llo"})
    assert answer.status == 200
    tokens = answer.json()
    assert [token["id"] for token in tokens] == reference.ids("Hé llo")
    encoded = "Hé llo".encode()
    for token in tokens:
        assert token["text"] == encoded[token["start"] : token["stop"]].decode(errors="replace")


def test_info_health_and_models(server: Server) -> None:
    info = server.get("/info").json()
    assert info["max_concurrent_requests"] == 64
    assert info["max_input_tokens"] == 1024
    assert info["max_total_tokens"] == 2048
    assert info["router"] == "text-generation-router"
    for path in ("/health", "/ping", "/"):
        answer = server.get(path)
        assert (answer.status, answer.body) == (200, b"")
    models = server.get("/v1/models").json()
    assert models["data"][0]["id"] == info["model_id"]


def test_requests_run_to_the_end_of_the_context(server: Server) -> None:
    """Without a number of new tokens the context is filled, to the last token."""
    body = {"prompt": "zq", "temperature": 0, "ignore_eos": True}
    answer = server.post("/v1/completions", body).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 2048


def test_tokens_of_a_long_text_are_streamed_whole(server: Server, reference: Reference) -> None:
    text = "The fox says ü. " * 4000
    tokens = server.post("/tokenize", {"inputs": text}).json()
    assert [token["id"] for token in tokens] == reference.ids(text)
    assert "".join(token["text"] for token in tokens[1:]).count("fox says") == 4000
    assert tokens[-1]["stop"] == len(text.encode())
