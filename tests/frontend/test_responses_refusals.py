"""``/v1/responses``: what is refused, and what fails."""

from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import RequestError
from common.messages import Accepted, Ended, Rejected, Submit
from tests.frontend.fakes import Server, serve
from tests.frontend.responses import LOGPROBS, OTHER, TOOL, ask, chat_of, numbered, part


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": None}, "$.input"),
        ({"input": ""}, "`input` cannot be empty"),
        ({"input": []}, "`input` cannot be empty"),
        ({"input": [{"role": "user", "content": "a"}] * 5000}, "`input` supports up to 4096"),
        ({"max_output_tokens": 0}, "`max_output_tokens` must be strictly positive"),
        ({"temperature": -1}, "`temperature` must be >= 0"),
        ({"previous_response_id": "resp_1"}, "`previous_response_id` is not supported: nothing is"),
        ({"conversation": {"id": "a"}}, "`conversation` is not supported: nothing is stored"),
        ({"prompt": {"id": "a"}}, "`prompt` is not supported"),
        ({"background": True}, "`background` is not supported"),
        ({"truncation": "auto"}, "`truncation` is not supported"),
        ({"context_management": [{"type": "compaction"}]}, "`context_management` is not"),
        ({"max_tokens": 5}, "`max_tokens` is no field of `/v1/responses`"),
        ({"cache_salt": ""}, "`cache_salt` must have 1 to 256 characters"),
        ({"stop": "a"}, "`stop` is no field of `/v1/responses`"),
        ({"guided_json": {}}, "`guided_json` is no field of `/v1/responses`"),
        ({"stream_options": {"include_obfuscation": True}}, "$.stream_options.include_obfuscation"),
        ({"include": ["everything"]}, "$.include"),
        ({"top_logprobs": 2}, "`top_logprobs` needs `include`"),
        ({"top_logprobs": 99, "include": LOGPROBS}, "`top_logprobs` must be"),
        ({"metadata": {str(i): "" for i in range(17)}}, "`metadata` supports up to 16"),
        ({"metadata": {"a" * 65: ""}}, "`metadata` names"),
        ({"metadata": {"a": "b" * 513}}, "`metadata` texts"),
        ({"reasoning": {"effort": "huge"}}, "$.reasoning.effort"),
        ({"text": {"format": {"type": "xml"}}}, "$.text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "`text.format` of type `json_schema`"),
        (
            {"text": {"format": {"type": "json_schema", "schema": deep(200)}}},
            "`text.format` must not nest deeper",
        ),
        (
            {"tools": [TOOL], "text": {"format": {"type": "json_object"}}},
            "mutually exclusive",
        ),
        ({"tools": [{"type": "web_search"}]}, "`tools[0].type` is `web_search`: only `function`"),
        ({"tools": [TOOL, {"type": "mcp", "server_label": "a"}]}, "`tools[1].type` is `mcp`"),
        ({"tools": [{"type": "function"}]}, "`tools[0]` needs `name`"),
        ({"tools": [{"type": "function", "name": ""}]}, "`tools[0].name` must have"),
        ({"tools": [TOOL] * 129, "tool_choice": "none"}, "`tools` supports up to 128 tools"),
        ({"tools": [TOOL, TOOL]}, "two tools of the same name"),
        (
            {"tools": [{**TOOL, "parameters": deep(200)}], "tool_choice": "none"},
            "`tools[0].parameters` must not nest deeper",
        ),
        ({"tool_choice": "required"}, "`tool_choice` is `required`, but there are no `tools`"),
        ({"tool_choice": "maybe"}, "$.tool_choice"),
        ({"tool_choice": {"type": "file_search"}}, "`tool_choice.type` is `file_search`"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "needs `name`"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "b"}},
            "`tool_choice` names a tool that is not among `tools`",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "needs `mode` and `tools`"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [OTHER]},
            },
            "`tool_choice.tools` names a tool that is not among `tools`",
        ),
    ],
)
def test_refused(server: Server, fields: dict[str, Any], words: str) -> None:
    for stream in (False, True):
        answer = ask(server, **fields, stream=stream)
        assert answer.status_code == 422
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert words in answer.json["error"]["message"]
    assert not server.pipeline.of(Submit)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"content": "a"}, "`input[1].role` must be one of"),
        ({"role": "tool", "content": "a"}, "`input[1].role` must be one of"),
        ({"role": "user"}, "`input[1]` needs `content`"),
        (
            {"role": "user", "content": [part("a"), {"type": "input_image", "image_url": "http"}]},
            "`input[1].content[1]` is `input_image`: this model reads only text",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "a"}]},
            "`input[1].content[0]` is `input_file`",
        ),
        (
            {"role": "user", "content": [{"type": "input_text"}]},
            "`input[1].content[0]` needs `text`",
        ),
        ({"type": "item_reference", "id": "a"}, "`input[1]` is an `item_reference`, but nothing"),
        ({"type": "web_search_call", "id": "a"}, "`input[1].type` is `web_search_call`"),
        ({"type": "function_call", "name": "a"}, "`input[1]` needs `call_id`"),
        ({"type": "function_call", "call_id": "a"}, "`input[1]` needs `name`"),
        (
            {"type": "function_call_output", "call_id": "a", "output": "b"},
            "`input[1].call_id` names no `function_call` before it",
        ),
        ({"type": "function_call_output", "call_id": "a"}, "`input[1]` needs `output`"),
    ],
)
def test_refused_items(server: Server, item: dict[str, Any], words: str) -> None:
    answer = ask(server, input=[{"role": "user", "content": "a"}, item])
    assert answer.status_code == 422
    assert words in answer.json["error"]["message"]
    assert answer.json["error"]["param"].startswith("input[1]")


def test_an_image_in_a_result_is_refused() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "a", "arguments": "{}"}
    output = [part("a"), {"type": "input_image"}]
    with pytest.raises(RequestError, match=r"`input\[1\]\.output\[1\]` is `input_image`"):
        chat_of(call, {"type": "function_call_output", "call_id": "c", "output": output})


def test_what_changes_nothing_is_accepted(server: Server) -> None:
    answer = ask(
        server,
        include=["reasoning.encrypted_content", "file_search_call.results"],
        service_tier="flex",
        stream_options={"include_obfuscation": False},
        prompt_cache_retention="24h",
        max_tool_calls=3,
        truncation="disabled",
        background=False,
        previous_response_id=None,
        conversation=None,
        store=False,
        tools=None,
        text=None,
        stop=None,
    )
    assert answer.status_code == 200
    assert answer.json["service_tier"] == "default"


@pytest.mark.parametrize("path", ["resp_1", "resp_1/cancel", "resp_1/input_items", "compact"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_nothing_is_stored(server: Server, path: str, method: str) -> None:
    answer = server.client.simulate_request(method, f"/v1/responses/{path}")
    assert answer.status_code == 404
    assert answer.json["error"]["type"] == "not_found_error"
    assert "No response is stored on this server" in answer.json["error"]["message"]


def test_overloaded(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=0.2)
    ]
    answer = ask(server, stream=True)
    assert answer.status_code == 429
    assert answer.json["error"]["type"] == "rate_limit_error"


def failing_after(server: Server, tokens: int) -> None:
    """From now on, every sequence fails after so many tokens."""
    normal = server.pipeline.items

    def items(submit: Submit) -> Any:
        yield from normal(submit)[:tokens]
        gevent.sleep(0)
        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        server.pipeline.link.receive(ended)

    server.pipeline.items = items  # type: ignore[method-assign]


def test_failure_in_a_stream(server: Server) -> None:
    failing_after(server, 1)
    events = numbered(ask(server, stream=True).content)
    *_, error, last = events
    assert error["type"] == "error"
    assert "broken" in error["message"]
    assert error["error"]["message"] == error["message"]
    assert error["error"]["type"] == "server_error"
    assert last["type"] == "response.failed"
    response = last["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    (item,) = response["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", " hello")
    server.pipeline.check_released(success=False)


def test_failure_before_the_first_token_of_a_stream(server: Server) -> None:
    def fail(submit: Submit) -> list[Any]:
        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        gevent.spawn_later(0.01, server.pipeline.link.receive, ended)
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = fail
    kinds = [event["type"] for event in numbered(ask(server, stream=True).content)]
    assert kinds == ["response.created", "response.in_progress", "error", "response.failed"]


def test_failure_of_a_whole_answer(server: Server) -> None:
    failing_after(server, 1)
    answer = ask(server)
    assert answer.status_code == 424
    assert "broken" in answer.json["error"]["message"]
