"""Parameters of the OpenAI routes: their many names, and what the worker is told."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve
from tests.frontend.openai import chat


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_resolved_sampling(server: Server) -> None:
    def sampling(**fields: Any) -> Any:
        assert chat(server, **fields).status_code == 200
        return server.pipeline.of(Submit)[-1].spec.sampling

    assert sampling().do_sample
    assert sampling(temperature=1.0).do_sample
    greedy = sampling(temperature=0, top_p=0.5, top_k=3, seed=4)
    assert (greedy.do_sample, greedy.top_p, greedy.top_k, greedy.seed) == (False, 1.0, 0, 0)
    assert sampling(seed=-1).seed == 2**64 - 1
    nearly_all = sampling(temperature=1, top_p=1 - 1e-9, typical_p=0.25)
    assert (nearly_all.top_p, nearly_all.typical_p) == (1.0, 0.25)
    drawn = sampling(temperature=0.5, top_p=1, top_k=-1, seed=11)
    assert (drawn.temperature, drawn.top_p, drawn.top_k, drawn.seed) == (0.5, 1.0, 0, 11)
    penalties = sampling(frequency_penalty=0.5, presence_penalty=-1, repetition_penalty=1.1)
    assert penalties.output_frequency_penalty == 0.5
    assert penalties.output_presence_penalty == -1.0
    assert penalties.repetition_penalty == 1.1
    assert penalties.frequency_penalty == 0.0
    assert sampling(logit_bias={"3": -100, "4": 5}).logit_bias == {3: -100.0, 4: 5.0}
    assert sampling(min_tokens=2, max_tokens=5).min_new_tokens == 2
    assert sampling(min_p=0.25).min_p == 0.25
    assert sampling(min_p=0.25, temperature=0).min_p == 0.0


def test_token_limits(server: Server) -> None:
    def limit(**fields: Any) -> int:
        assert chat(server, **fields).status_code == 200
        return server.pipeline.of(Submit)[-1].spec.max_new_tokens

    length = limit() and len(server.pipeline.of(Submit)[-1].spec.prompt_ids)
    assert limit() == 2048 - length
    assert limit(max_tokens=7) == 7
    assert limit(max_completion_tokens=8) == 8
    assert limit(max_tokens=7, max_completion_tokens=8) == 8


def test_ignore_eos(server: Server) -> None:
    assert chat(server, ignore_eos=True).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.stop_token_ids == []


def test_stop_token_ids(server: Server) -> None:
    own = server.services.tokenizer.stop_token_ids
    assert chat(server, stop_token_ids=[3, 7]).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.stop_token_ids == [3, 7, *own]
    assert chat(server, stop_token_ids=[3], ignore_eos=True).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.stop_token_ids == [3]
    answer = chat(server, stop_token_ids=[3], response_format={"type": "json_object"})
    assert answer.status_code == 422
    assert "`stop_token_ids` cannot be combined" in answer.json["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_ends_the_text_is_part_of_it_if_that_is_asked_for(
    server: Server, stream: bool
) -> None:
    def text(**fields: Any) -> str:
        answer = chat(server, stream=stream, **fields)
        assert answer.status_code == 200
        if not stream:
            return answer.json["choices"][0]["message"]["content"]
        found = events(answer.content)[:-1]
        return "".join(event["choices"][0]["delta"].get("content") or "" for event in found)

    (world,) = server.services.tokenizer.encode(" world", add_special_tokens=False)
    assert text() == " hello world"
    assert text(stop=[" wo"]) == " hello"
    assert text(stop=[" wo"], include_stop_str_in_output=True) == " hello wo"
    assert text(stop_token_ids=[world]) == " hello"
    assert text(stop_token_ids=[world], include_stop_str_in_output=True) == " hello world"
    assert text(skip_special_tokens=False) == " hello world"
    both = {"skip_special_tokens": False, "include_stop_str_in_output": True}
    assert text(**both) == " hello world</s>"


def test_special_tokens_around_the_prompt(server: Server) -> None:
    def prompt(path: str, **fields: Any) -> list[int]:
        body = {"prompt": "x", "messages": [{"role": "user", "content": "x"}], **fields}
        assert server.post(path, body).status_code == 200
        return server.pipeline.of(Submit)[-1].spec.prompt_ids

    tokenizer = server.services.tokenizer
    for path, usual in (("/v1/completions", True), ("/v1/chat/completions", False)):
        assert prompt(path) == prompt(path, add_special_tokens=usual)
        with_them, without = (prompt(path, add_special_tokens=added) for added in (True, False))
        assert len(with_them) > len(without)
        assert with_them[-len(without) :] == without or with_them[: len(without)] == without
        assert tokenizer.is_special((set(with_them) - set(without) or set(with_them)).pop())


FORMS = {
    "grammar": ({"type": "regex", "value": "a+"}, "regex: a+"),
    "response_format": ({"type": "regex", "value": "a+"}, "regex: a+"),
    "structured_outputs": ({"choice": ["a", "b"]}, 'lark: start: "a" | "b"'),
    "guided_json": ({"type": "null"}, 'json_schema: {"type":"null"}'),
    "guided_regex": ("a+", "regex: a+"),
    "guided_choice": (["a"], 'lark: start: "a"'),
    "guided_grammar": ('root ::= "a"', 'gbnf: root ::= "a"'),
}


@pytest.mark.parametrize("name", list(FORMS))
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
    ],
)
def test_a_grammar_by_each_of_its_names(
    server: Server, name: str, path: str, body: dict[str, Any]
) -> None:
    value, grammar = FORMS[name]
    assert server.post(path, {**body, name: value}).status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.grammar == grammar
    other = next(known for known in FORMS if known != name)
    answer = server.post(path, {**body, name: value, other: FORMS[other][0]})
    assert answer.status_code == 422
    assert "are two names of the same" in answer.json["error"]["message"]


HARMLESS = {
    "n": 1, "user": "me", "parallel_tool_calls": True, "service_tier": "auto", "metadata": {},
    "store": False, "echo": False, "best_of": 1, "tools": [], "tool_choice": None,
    "response_format": {"type": "text"}, "top_p": 1, "logit_bias": {}, "stop": None,
    "stream_options": None, "logprobs": None, "tool_prompt": "x", "seed": None,
    "repetition_penalty": None, "frequency_penalty": None, "presence_penalty": 0,
    "stream": None, "max_tokens": None, "modalities": ["text"], "functions": None,
    "min_p": 0, "stop_token_ids": [], "structured_outputs": None, "guided_grammar": None,
}  # fmt: skip


def test_harmless_fields_are_accepted(server: Server) -> None:
    assert chat(server, **HARMLESS).status_code == 200
    for name, value in HARMLESS.items():
        assert chat(server, **{name: value}).status_code == 200, name
