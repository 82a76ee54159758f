"""``/v1/messages``: what is refused, and what fails."""

from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import RequestError
from common.messages import Accepted, Ended, Rejected, Submit
from tests.frontend.anthropic import IMAGE, TOOL, ask, chat_of, named, text_block
from tests.frontend.fakes import Server, serve


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "`max_tokens` must be strictly positive"),
        ({"max_tokens": None}, "$.max_tokens"),
        ({"messages": []}, "`messages` cannot be empty"),
        ({"messages": [], "system": "a"}, "`messages` cannot be empty"),
        ({"temperature": 1.5}, "`temperature` must be >= 0 and <= 1"),
        ({"temperature": -1}, "`temperature` must be >= 0 and <= 1"),
        ({"top_p": 2}, "`top_p`"),
        ({"top_k": -1}, "$.top_k"),
        ({"stop_sequences": ["a"] * 9}, "`stop_sequences` supports up to 4 of them. Given: 9"),
        ({"stop_sequences": ["a" * 1025]}, "`stop_sequences[0]` must have at most 1024 characters"),
        ({"mcp_servers": [{"url": "http://a"}]}, "`mcp_servers` is not supported"),
        ({"container": "a"}, "`container` is not supported"),
        ({"speed": "fast"}, "`speed` is not supported"),
        ({"cache_salt": "s"}, "`cache_salt` is not supported"),
        ({"context_management": {"edits": [{"type": "clear"}]}}, "`context_management`"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "`tools[0].type` is `web_search_20250305`: only `custom` tools",
        ),
        ({"tools": [TOOL, {"name": "b"}]}, "`tools[1]` needs `input_schema`"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "`tools[0].name` must have"),
        ({"tools": [TOOL, TOOL]}, "two tools of the same name"),
        ({"tool_choice": {"type": "any"}}, "`tool_choice` is `any`, but there are no `tools`"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "needs `name`"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "b"}},
            "`tool_choice` names a tool that is not among `tools`",
        ),
        ({"thinking": {"type": "maybe"}}, "$.thinking.type"),
    ],
)
def test_refused(server: Server, fields: dict[str, Any], words: str) -> None:
    for stream in (False, True):
        answer = ask(server, **fields, stream=stream)
        assert answer.status_code == 422
        assert answer.json["type"] == "error"
        assert answer.json["error"]["type"] == "invalid_request_error"
        assert words in answer.json["error"]["message"]
        assert answer.json["request_id"] == answer.headers["request-id"]
    assert not server.pipeline.of(Submit)


@pytest.mark.parametrize(
    ("role", "block", "words"),
    [
        ("user", IMAGE, "`messages[0].content[1]` is `image`: this model reads only text"),
        ("user", {"type": "document", "source": {}}, "`messages[0].content[1]` is `document`"),
        (
            "user",
            {"type": "tool_result", "tool_use_id": "x"},
            "`messages[0].content[1].tool_use_id` names no `tool_use` block before it",
        ),
        ("user", {"type": "search_result"}, "'search_result' - at `$.messages[0].content[1].type`"),
        ("assistant", {"type": "server_tool_use"}, "$.messages[0].content[1].type"),
        ("assistant", {"type": "tool_use", "id": "a", "name": "b"}, "`input`"),
        ("tool", IMAGE, "'tool' - at `$.messages[0].role`"),
    ],
)
def test_refused_blocks(server: Server, role: str, block: dict[str, Any], words: str) -> None:
    answer = ask(server, messages=[{"role": role, "content": [text_block("a"), block]}])
    assert answer.status_code == 422
    assert words in answer.json["error"]["message"].replace("[...]", "[0]", 1).replace(
        "[...]", "[1]"
    )


def test_an_image_in_a_result_is_refused() -> None:
    use = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text_block("a"), IMAGE]}
    with pytest.raises(RequestError, match=r"messages\[1\]\.content\[0\]\.content\[1\]. is .image"):
        chat_of(
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        )


def test_what_changes_nothing_is_ignored(server: Server) -> None:
    answer = ask(
        server,
        metadata={"user_id": "a"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        mcp_servers=[],
        speed="standard",
        container=None,
        system=None,
        tools=None,
    )
    assert answer.status_code == 200


def test_overloaded(server: Server) -> None:
    server.pipeline.answer = lambda submit: [
        Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=0.2)
    ]
    answer = ask(server, stream=True)
    assert answer.status_code == 429
    assert answer.json["error"]["type"] == "rate_limit_error"


def test_failure_in_a_stream_is_its_last_event(server: Server) -> None:
    def fail(submit: Submit) -> list[Any]:
        ended = Ended(id=submit.spec.id, attempt=0, reason="failed", message="broken")
        gevent.spawn_later(0.01, server.pipeline.link.receive, ended)
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = fail
    answer = ask(server, stream=True)
    assert answer.status_code == 200
    (error,) = named(answer.content)
    assert error["type"] == "error"
    assert error["error"]["type"] == "api_error"
    assert "broken" in error["error"]["message"]
    assert error["request_id"] == answer.headers["request-id"]
    server.pipeline.check_released(success=False)
