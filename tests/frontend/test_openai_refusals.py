"""What the OpenAI routes refuse by name, and how they say what fails."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Accepted, Ended, Rejected, Submit
from tests.frontend.fakes import Server, events, serve
from tests.frontend.openai import CHAT, MESSAGES, chat


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_no_template(model_dir: Path) -> None:
    server = serve(model_dir, template=False)
    for stream in (False, True):
        answer = chat(server, stream=stream)
        assert answer.status_code == 422
        assert answer.json["error_type"] == "template_error"
        assert "--tokenizer-config-path" in answer.text
        assert answer.json["error"]["message"].startswith("Template error: ")


REFUSED = [
    ("n", 0),
    ("n", 9),
    ("priority", 1001),
    ("cache_salt", ""),
    ("cache_salt", "s" * 257),
    ("functions", [{}]),
    ("tools", [{"type": "function", "function": {}}]),
    ("response_format", {"type": "json_schema"}),
    ("response_format", {"type": "xml"}),
    ("audio", {}),
    ("min_p", 1.5),
    ("min_p", -0.1),
    ("min_p", "x"),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", [99999]),
    ("stop_token_ids", [1] * 129),
    ("stop_token_ids", 3),
    ("guided_json", []),
    ("guided_json", "{"),
    ("guided_regex", ["a"]),
    ("guided_choice", []),
    ("guided_choice", ["yes", ""]),
    ("guided_choice", "yes"),
    ("guided_grammar", ["root"]),
    ("structured_outputs", {}),
    ("structured_outputs", []),
    ("structured_outputs", {"json": {}, "regex": "a"}),
    ("structured_outputs", {"json": []}),
    ("structured_outputs", {"choice": [3]}),
    ("structured_outputs", {"structural_tag": "a"}),
    ("structured_outputs", {"regex": "a", "whitespace_pattern": " "}),
    ("temperature", -1),
    ("top_p", 0),
    ("top_p", 1.5),
    ("top_p", 1 + 1e-9),
    ("typical_p", 1e-300),
    ("top_k", -2),
    ("frequency_penalty", 3),
    ("presence_penalty", -3),
    ("repetition_penalty", 0),
    ("max_tokens", 0),
    ("max_completion_tokens", 0),
    ("stop", ["a"] * 5),
    ("top_logprobs", 9),
    ("min_tokens", 5000),
    ("logit_bias", [1.0]),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"99999": 1}),
    ("logit_bias", {"1": 101}),
    ("max_tokens", 20.0),
    ("max_tokens", "3"),
    ("seed", -(2**63) - 1),
    ("stop", 3),
    ("logprobs", 1),
    ("messages", []),
    ("messages", "x"),
    ("messages", [{"content": "x"}]),
    ("messages", [{"role": "user"}]),
    ("messages", [{"role": "user", "content": None}]),
    ("messages", [{"role": "user", "content": 3}]),
    ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
    ("chat_template_kwargs", {"messages": []}),
    ("chat_template", "x"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refused_fields_are_named(server: Server, name: str, value: Any, stream: bool) -> None:
    answer = chat(server, **{name: value, "stream": stream})
    assert answer.status_code == 422
    body = answer.json
    assert list(body) == ["error", "error_type"]
    assert body["error_type"] == "validation"
    assert name.removesuffix("_completion_tokens") in body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["code"] == "validation"
    assert body["error"]["http_status_code"] == 422
    assert not server.pipeline.of(Submit)


def test_overload_is_a_status_also_on_streams(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=0.2)
    ]
    for stream in (False, True):
        answer = chat(server, stream=stream)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        assert answer.json["error"]["message"] == "Model is overloaded"
        assert answer.json["error"]["type"] == "rate_limit_error"
        assert answer.json["error_type"] == "overloaded"


def test_failure_in_a_stream_is_an_event(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Accepted(id=submit.spec.id, attempt=0),
    ]
    client_body = {"messages": MESSAGES, "stream": True}

    def fail(submit: Submit) -> list[Any]:
        import gevent

        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        gevent.spawn_later(0.01, server.pipeline.link.receive, ended)
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = fail
    usage = server.post(CHAT, {**client_body, "stream_options": {"include_usage": True}})
    assert [next(iter(event)) for event in events(usage.content)[:-1]] == ["error", "id"]
    counts = events(usage.content)[1]["usage"]
    assert counts["completion_tokens"] == 0
    assert counts["prompt_tokens"] > 0
    answer = server.post(CHAT, client_body)
    assert answer.status_code == 200
    assert answer.content.startswith(b'data: {"error":{"message":"Request failed')
    event, done = events(answer.content)
    assert event["error"]["http_status_code"] == 424
    assert event["error_type"] == "generation"
    assert done == "[DONE]"
    server.pipeline.check_released(success=False)
