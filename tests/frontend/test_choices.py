"""Several choices of one prompt, and what completions tell beside the text."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve, write_model
from tests.frontend.text.conftest import byte_fallback

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def seeds(server: Server) -> list[int]:
    return [message.spec.sampling.seed for message in server.pipeline.of(Submit)]


def test_choices_of_a_chat(server: Server) -> None:
    body = server.post(CHAT, {"messages": MESSAGES, "n": 3, "seed": 2**64 - 1}).json
    assert [c["index"] for c in body["choices"]] == [0, 1, 2]
    assert {c["message"]["content"] for c in body["choices"]} == {" hello world"}
    assert seeds(server) == [2**64 - 1, 0, 1]
    prompt = len(server.pipeline.of(Submit)[0].spec.prompt_ids)
    assert body["usage"]["prompt_tokens"] == prompt
    assert body["usage"]["completion_tokens"] == 9
    server.pipeline.check_released(success=True)


def test_choices_without_a_seed_differ(server: Server) -> None:
    assert server.post(CHAT, {"messages": MESSAGES, "n": 4}).status_code == 200
    assert len(set(seeds(server))) == 4


def test_choices_of_a_stream_have_each_their_role_and_end(server: Server) -> None:
    fields = {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, usage, done = events(server.post(CHAT, {"messages": MESSAGES, **fields}).content)
    assert done == "[DONE]"
    for index in (0, 1):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert [c["delta"].get("role") for c in own] == ["assistant", None, None]
        assert "".join(c["delta"].get("content", "") for c in own) == " hello world"
        assert [c["finish_reason"] for c in own] == [None, None, "stop"]
    assert usage["usage"]["completion_tokens"] == 6


def test_more_choices_than_may_ever_be_alive_are_no_overload(model_dir: Path) -> None:
    """Who is told of an overload comes again, and would be refused forever."""
    server = serve(model_dir, max_concurrent_requests=3)
    assert server.post(COMPLETIONS, {"prompt": "a", "n": 3}).status_code == 200
    sent = len(server.pipeline.of(Submit))
    for path, fields in (
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2, "stream": True}),
        (CHAT, {"messages": MESSAGES, "n": 4}),
    ):
        answer = server.post(path, fields)
        assert answer.status_code == 422
        assert "4 texts at once" in answer.json["error"]["message"]
    best = {"inputs": "a", "parameters": {"best_of": 2, "do_sample": True}}
    answer = serve(model_dir, max_concurrent_requests=1).post("/generate", best)
    assert (answer.status_code, answer.json["error_type"]) == (422, "validation")
    assert len(server.pipeline.of(Submit)) == sent


def test_priority_goes_along(server: Server) -> None:
    assert server.post(CHAT, {"messages": MESSAGES, "priority": -5}).status_code == 200
    assert server.pipeline.of(Submit)[0].priority == -5


@pytest.mark.parametrize("salt", [None, "s", "\u00e9" * 256])
def test_a_salt_goes_along_with_every_choice(server: Server, salt: str | None) -> None:
    body = {"messages": MESSAGES, "n": 2, "cache_salt": salt}
    assert server.post(CHAT, body).status_code == 200
    salts = [submit.spec.cache_salt for submit in server.pipeline.of(Submit)]
    assert salts == [salt or ""] * 2


def test_choices_of_several_prompts(server: Server) -> None:
    body = server.post(COMPLETIONS, {"prompt": ["a", "hello"], "n": 2, "echo": True}).json
    assert [(c["index"], c["text"]) for c in body["choices"]] == [
        (0, "a hello world"),
        (1, "a hello world"),
        (2, "hello hello world"),
        (3, "hello hello world"),
    ]
    assert body["usage"]["prompt_tokens"] == 4
    assert body["usage"]["completion_tokens"] == 12


def test_the_likeliest_of_best_of_are_answered(server: Server) -> None:
    texts = iter([" hello world", " hello", " hello world"])

    def reply(spec: Any) -> list[int]:
        return server.services.tokenizer.encode(next(texts), add_special_tokens=False)

    server.pipeline.reply = reply
    body = server.post(COMPLETIONS, {"prompt": "a", "best_of": 3, "n": 1}).json
    assert [(c["index"], c["text"]) for c in body["choices"]] == [(0, " hello")]
    assert body["usage"]["completion_tokens"] == 8
    server.pipeline.check_released(success=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"best_of": 1, "n": 2},
        {"best_of": 9},
        {"best_of": 2, "stream": True},
        {"echo": True, "logprobs": 1},
        {"echo": True, "logprobs": 1, "stream": True},
        {"logprobs": 6},
    ],
)
def test_what_completions_refuse(server: Server, fields: dict[str, Any]) -> None:
    answer = server.post(COMPLETIONS, {"prompt": "a", **fields})
    assert answer.status_code == 422
    named = answer.json["error"]["message"]
    assert any(f"`{name}`" in named for name in fields)
    assert not server.pipeline.of(Submit)


def test_logprobs_of_a_completion(server: Server) -> None:
    (choice,) = server.post(COMPLETIONS, {"prompt": "a", "logprobs": 2}).json["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == [" hello", " world", "</s>"]
    assert logprobs["token_logprobs"] == [-0.5, -1.0, -1.5]
    assert logprobs["text_offset"] == [0, 6, 12]
    assert [sorted(tops.values()) for tops in logprobs["top_logprobs"]] == [[-1.5, -0.5]] * 3
    body = {"prompt": "a", "logprobs": 0, "stream": True}
    *chunks, _ = events(server.post(COMPLETIONS, body).content)
    found = [c["choices"][0]["logprobs"] for c in chunks]
    assert [p["tokens"] for p in found] == [[" hello"], [" world"], ["</s>"]]
    assert [p["text_offset"] for p in found] == [[0], [6], [12]]
    assert found[0]["top_logprobs"] == [None]


def test_logprobs_of_an_echoed_prompt(model_dir: Path) -> None:
    server = serve(model_dir, enable_prefill_logprobs=True)
    fields = {"prompt": "hello", "logprobs": 1, "echo": True, "max_tokens": 1}
    (choice,) = server.post(COMPLETIONS, fields).json["choices"]
    assert choice["text"] == "hello hello"
    assert choice["logprobs"]["tokens"] == ["<s>", "hello", " hello"]
    assert choice["logprobs"]["token_logprobs"] == [None, -1.0, -0.5]
    assert server.pipeline.of(Submit)[0].spec.prefill_logprobs


def test_an_echo_of_token_ids_and_of_a_stream(server: Server) -> None:
    ids = server.services.tokenizer.encode("hello", add_special_tokens=True)
    (choice,) = server.post(COMPLETIONS, {"prompt": ids, "echo": True}).json["choices"]
    assert choice["text"] == "hello hello world"
    body = {"prompt": "hello", "echo": True, "stream": True}
    *chunks, _ = events(server.post(COMPLETIONS, body).content)
    assert [c["choices"][0]["text"] for c in chunks] == ["hello hello", " world", ""]


@pytest.fixture
def sentence_piece(tmp_path: Path) -> Server:
    """A server whose tokenizer drops the space before a text's first word, and falls to bytes."""
    path = write_model(tmp_path / "model")
    byte_fallback().save(str(path / "tokenizer.json"))
    return serve(path, "The quick</s> fox 中", enable_prefill_logprobs=True)


def test_candidates_are_written_as_what_is_generated(sentence_piece: Server) -> None:
    body = {"prompt": "The", "logprobs": 2}
    (choice,) = sentence_piece.post(COMPLETIONS, body).json["choices"]
    tokens, tops = choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"]
    assert tokens[:2] == [" The", " quick"]
    assert [next(iter(top)) for top in tops[:2]] == [" The", " quick"]
    body = {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 2}
    (choice,) = sentence_piece.post("/v1/chat/completions", body).json["choices"]
    first = choice["logprobs"]["content"][0]
    assert first["token"] == first["top_logprobs"][0]["token"] == " The"
    assert first["bytes"] == first["top_logprobs"][0]["bytes"]


def test_candidates_that_are_parts_of_characters_are_all_told(sentence_piece: Server) -> None:
    body = {"prompt": "The", "logprobs": 2, "ignore_eos": True}
    (choice,) = sentence_piece.post(COMPLETIONS, body).json["choices"]
    assert {r"bytes:\xe4": -0.5, r"bytes:\xe5": -1.5} in choice["logprobs"]["top_logprobs"]


@pytest.mark.parametrize("stream", [False, True])
def test_offsets_are_those_of_the_text(sentence_piece: Server, stream: bool) -> None:
    echo = not stream  # the two cannot be had together
    body = {"prompt": "<s>The quick", "logprobs": 0, "ignore_eos": True, "max_tokens": 5}
    answer = sentence_piece.post(COMPLETIONS, {**body, "echo": echo, "stream": stream})
    parts = events(answer.content)[:-1] if stream else [answer.json]
    choices = [part["choices"][0] for part in parts]
    text = "".join(choice["text"] for choice in choices)
    columns = ("tokens", "text_offset")
    tokens, offsets = ([x for c in choices for x in c["logprobs"][name]] for name in columns)
    for token, offset in zip(tokens, offsets, strict=True):
        assert text.startswith("" if token == "</s>" else token, offset)
    assert offsets == sorted(offsets)
    assert offsets[tokens.index(" fox")] == text.index(" fox")
