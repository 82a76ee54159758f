"""Every violation of the contract's table, their order, wrong types, and the token budget."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, events, serve


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


V = "Input validation error: "


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"best_of": 3, "do_sample": True}, "`best_of` must be > 0 and <= 2. Given: 3"),
        ({"best_of": 2}, "`best_of` > 1 needs sampling"),
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"temperature": -1.0}, "`temperature` must be strictly positive"),
        ({"temperature": 1e-60}, "`temperature` must be strictly positive"),
        ({"temperature": 1e60}, "`temperature` is out of range"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
        ({"frequency_penalty": 2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"frequency_penalty": -2.1}, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        ({"top_p": 0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"typical_p": 1}, "`typical_p` must be > 0.0 and < 1.0"),
        ({"min_p": 1.5}, "`min_p` must be >= 0.0 and <= 1.0"),
        ({"min_p": -1}, "`min_p` must be >= 0.0 and <= 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"top_k": -5}, "`top_k` must be strictly positive"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"stop": ["a"] * 5}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"stop": ["", "a" * 1025]}, "`stop[1]` must have at most 1024 characters"),
        ({"best_of": 2, "do_sample": True, "seed": 1}, "`seed` must not be set"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"cache_salt": ""}, "`cache_salt` must have 1 to 256 characters"),
        ({"cache_salt": "s" * 257}, "`cache_salt` must have 1 to 256 characters"),
        ({"truncate": 0}, "`truncate` must be strictly positive"),
        ({"truncate": 1025}, "`truncate` must be strictly positive and <= 1024. Given: 1025"),
        ({"grammar": {"type": "json", "value": "{"}}, "`grammar` holds a string that is not JSON"),
        ({"grammar": {"type": "json_schema", "value": {}}}, "`grammar` must hold a JSON schema"),
        ({"grammar": {"type": "regex", "value": "bad"}}, "`grammar` cannot be used: it is bad"),
    ],
)
def test_violations(server: Server, given: dict[str, Any], text: str) -> None:
    body = {"inputs": "a", "parameters": given}
    answer = server.post("/generate", body)
    assert answer.status_code == 422
    assert answer.json["error"].startswith(V + text)
    assert answer.json["error_type"] == "validation"
    assert list(answer.json) == ["error", "error_type"]
    assert "x-compute-type" not in answer.headers
    assert not server.pipeline.of(Submit)
    if "best_of" not in given:
        streamed = server.post("/generate_stream", body)
        assert streamed.status_code == 200
        assert events(streamed.content) == [answer.json]


def test_best_of_may_be_forbidden(model_dir: Path) -> None:
    server = serve(model_dir, max_best_of=1)
    body = {"inputs": "a", "parameters": {"best_of": 2, "do_sample": True}}
    assert "not allowed" in server.post("/generate", body).json["error"]


@pytest.mark.parametrize("best_of", [0, 2, 3])
def test_stream_only_checks_come_first(server: Server, best_of: int) -> None:
    given = {"best_of": best_of, "decoder_input_details": True, "temperature": 0}
    (event,) = events(server.post("/generate_stream", {"inputs": "", "parameters": given}).content)
    assert "`best_of` must be 1" in event["error"]
    del given["best_of"]
    (event,) = events(server.post("/", {"inputs": "", "stream": True, "parameters": given}).content)
    assert "`decoder_input_details`" in event["error"]


ORDER: list[tuple[dict[str, Any], str]] = [
    ({"best_of": 9}, "`best_of` must be"),
    ({"temperature": 0}, "`temperature`"),
    ({"repetition_penalty": 0}, "`repetition_penalty`"),
    ({"frequency_penalty": 9}, "`frequency_penalty`"),
    ({"top_p": 9}, "`top_p`"),
    ({"typical_p": 9}, "`typical_p`"),
    ({"top_k": 0}, "`top_k`"),
    ({"max_new_tokens": 0}, "`max_new_tokens`"),
    ({"stop": ["a"] * 9}, "`stop`"),
    ({"top_n_tokens": 9}, "`top_n_tokens`"),
    ({}, "`inputs` cannot be empty"),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_order_of_checks(server: Server, first: int) -> None:
    given = {}
    for values, _ in ORDER[first:]:
        given.update(values)
    answer = server.post("/generate", {"inputs": "", "parameters": {**given, "truncate": 0}})
    assert answer.json["error"].startswith(V + ORDER[first][1])


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"inputs": 3}, "`$.inputs`"),
        ({"inputs": None}, "`$.inputs`"),
        ({}, "`inputs`"),
        ([], "object"),
        ("text", "object"),
        ({"inputs": "a", "parameters": None}, "`$.parameters`"),
        ({"inputs": "a", "parameters": []}, "`$.parameters`"),
        ({"inputs": "a", "parameters": {"do_sample": None}}, "`$.parameters.do_sample`"),
        ({"inputs": "a", "parameters": {"do_sample": 1}}, "`$.parameters.do_sample`"),
        ({"inputs": "a", "parameters": {"stop": None}}, "`$.parameters.stop`"),
        ({"inputs": "a", "parameters": {"stop": "x"}}, "`$.parameters.stop`"),
        ({"inputs": "a", "parameters": {"stop": [1]}}, "`$.parameters.stop[0]`"),
        ({"inputs": "a", "parameters": {"watermark": None}}, "`$.parameters.watermark`"),
        ({"inputs": "a", "parameters": {"details": None}}, "`$.parameters.details`"),
        (
            {"inputs": "a", "parameters": {"decoder_input_details": None}},
            "`$.parameters.decoder_input_details`",
        ),
        ({"inputs": "a", "parameters": {"max_new_tokens": 20.0}}, "max_new_tokens`"),
        ({"inputs": "a", "parameters": {"max_new_tokens": "20"}}, "max_new_tokens`"),
        ({"inputs": "a", "parameters": {"max_new_tokens": -1}}, "max_new_tokens`"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 2**32}}, "max_new_tokens`"),
        ({"inputs": "a", "parameters": {"seed": -1}}, "seed`"),
        (
            {"inputs": "a", "parameters": {"seed": 2**64}},
            "Expected `int` < 2**64 in `seed` - at `$.parameters`",
        ),
        ({"inputs": "a", "parameters": {"best_of": 2**64}}, "`$.parameters.best_of`"),
        ({"inputs": "a", "parameters": {"truncate": 2**64}}, "`$.parameters.truncate`"),
        ({"inputs": "a", "parameters": {"top_k": 2**31}}, "top_k`"),
        ({"inputs": "a", "parameters": {"temperature": "1"}}, "temperature`"),
        ({"inputs": "a", "parameters": {"temperature": True}}, "temperature`"),
        ({"inputs": "a", "parameters": {"grammar": "x"}}, "grammar`"),
        ({"inputs": "a", "parameters": {"grammar": {"type": "json"}}}, "`value`"),
        ({"inputs": "a", "parameters": {"grammar": {"value": "a"}}}, "`type`"),
        ({"inputs": "a", "parameters": {"grammar": {"type": "x", "value": "a"}}}, "grammar.type`"),
        (
            {"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": None}}},
            "grammar.value`",
        ),
        ({"inputs": "a", "parameters": {"adapter_id": 3}}, "adapter_id`"),
        ({"inputs": "a", "stream": None}, "`$.stream`"),
        ({"inputs": "a", "stream": "yes"}, "`$.stream`"),
    ],
)
@pytest.mark.parametrize("route", ["/", "/generate", "/generate_stream", "/tokenize"])
def test_wrong_types(server: Server, body: Any, path: str, route: str) -> None:
    answer = server.post(route, body)
    if isinstance(body, dict) and "stream" in body and route != "/":
        assert answer.status_code == 200  # an unknown key there
        return
    assert answer.status_code == 422
    assert answer.json["error_type"] == "validation"
    assert path in answer.json["error"]


class TestBudget:
    """Section 2.2 with the corrected ends; the prompt ``hello`` × n has n + 1 tokens."""

    @pytest.fixture
    def server(self, model_dir: Path) -> Server:
        return serve(model_dir, max_input_tokens=20, max_total_tokens=30)

    def ask(self, server: Server, tokens: int, **given: Any) -> Any:
        inputs = "hello" + " hello" * (tokens - 2)
        return server.post("/generate", {"inputs": inputs, "parameters": given})

    def room(self, server: Server) -> int:
        return server.pipeline.of(Submit)[-1].spec.max_new_tokens

    def test_null_fills_the_context(self, server: Server) -> None:
        assert self.ask(server, 10).status_code == 200
        assert self.room(server) == 20

    def test_given_is_exact(self, server: Server) -> None:
        assert self.ask(server, 10, max_new_tokens=20).status_code == 200
        assert self.room(server) == 20

    def test_given_beyond_the_context(self, server: Server) -> None:
        answer = self.ask(server, 10, max_new_tokens=21)
        assert answer.status_code == 422
        assert answer.json["error"] == (
            V + "`inputs` tokens + `max_new_tokens` must be <= 30 (--max-total-tokens). "
            "Given: 10 `inputs` tokens and 21 `max_new_tokens`"
        )

    def test_too_long_input(self, server: Server) -> None:
        answer = self.ask(server, 21, max_new_tokens=1)
        assert answer.json["error"] == (
            V + "`inputs` must have at most 20 tokens (--max-input-tokens). Given: 21"
        )

    def test_far_too_long_input_reports_the_same(self, server: Server) -> None:
        assert "at most 20 tokens" in self.ask(server, 40).json["error"]

    def test_no_room_for_an_answer(self, model_dir: Path) -> None:
        server = serve(model_dir, max_input_tokens=30, max_total_tokens=30)
        assert "leaves no room for an answer" in self.ask(server, 30).json["error"]

    def test_the_budget_is_checked_before_the_grammar(self, server: Server) -> None:
        answer = self.ask(server, 40, grammar={"type": "regex", "value": "bad"})
        assert "at most 20 tokens" in answer.json["error"]

    def test_truncation_keeps_the_end(self, server: Server) -> None:
        assert self.ask(server, 40, truncate=5).status_code == 200
        spec = server.pipeline.of(Submit)[-1].spec
        assert len(spec.prompt_ids) == 5
        assert spec.max_new_tokens == 25
        assert len(set(spec.prompt_ids)) == 1

    def test_large_numbers_are_cut(self, model_dir: Path) -> None:
        server = serve(model_dir, max_input_tokens=1024, max_total_tokens=2048)
        assert self.ask(server, 10, max_new_tokens=100_000).status_code == 200
        assert self.room(server) == 2038
