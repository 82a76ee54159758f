"""``/v1/responses``: items and fields as a chat knows them."""

from pathlib import Path
from typing import Any

import pytest

from common.messages import Submit
from tests.frontend.fakes import Server, serve
from tests.frontend.responses import CALL, OTHER, TOOL, ask, chat_of, part, prompt


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_a_conversation_with_tools() -> None:
    def call(name: str, call_id: str) -> dict[str, Any]:
        arguments = '{"city": "Paris"}'
        return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}

    body = chat_of(
        {"role": "user", "content": [part("go "), part("on")]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [part("hm", "reasoning_text")],
            "encrypted_content": None,
        },
        {"type": "message", "role": "assistant", "content": [part("so", "output_text")]},
        call("weather", "c1"),
        call("clock", "c2"),
        {"type": "function_call_output", "call_id": "c2", "output": "8am"},
        {"type": "function_call_output", "call_id": "c1", "output": [part("no"), part("!")]},
        {"role": "developer", "content": "short"},
        instructions="be good",
    )
    system, user, assistant, second, first, developer = body.messages
    assert (system.role, system.content) == ("system", "be good")
    assert (user.role, user.content) == ("user", "go on")
    assert (assistant.role, assistant.content) == ("assistant", "so")
    assert assistant.reasoning_content == "hm"
    assert assistant.tool_calls is not None
    assert [made["id"] for made in assistant.tool_calls] == ["c1", "c2"]
    assert assistant.tool_calls[0] == {
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
    }
    assert (second.role, second.content, second.tool_call_id) == ("tool", "8am", "c2")
    assert second.name == "clock"
    assert (first.content, first.tool_call_id, first.name) == ("no!", "c1", "weather")
    assert (developer.role, developer.content) == ("developer", "short")


def test_turns_of_the_model() -> None:
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    summed = {"type": "reasoning", "summary": [part("hm", "summary_text")]}
    secret = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    body = chat_of(said, said, summed, secret, said)
    assert [(m.content, m.reasoning_content) for m in body.messages] == [
        ("no", None),
        ("no", None),
        ("no", "hm"),
    ]
    call = {"type": "function_call", "call_id": "c", "name": "a", "arguments": ""}
    (turn,) = chat_of(said, call, said, call).messages
    assert turn.content == "no\n\nno"
    assert turn.tool_calls is not None
    assert len(turn.tool_calls) == 2


def test_a_last_turn_of_the_model_is_not_continued(server: Server) -> None:
    items = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Paris"}]
    ask(server, input=items)
    assert prompt(server) == "<|user|>hello\n<|assistant|>Paris\n<|assistant|>"


def test_an_answer_can_be_sent_back(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    answer = ask(server, tools=[TOOL]).json
    result = {
        "type": "function_call_output",
        "call_id": answer["output"][0]["call_id"],
        "output": "test",
    }
    again = ask(server, tools=[TOOL], input=[*answer["output"], result])
    assert again.status_code == 200
    assert "<|tool|>test" in prompt(server)


def test_sampling(server: Server) -> None:
    ask(server)
    sampling = server.pipeline.of(Submit)[-1].spec.sampling
    assert (sampling.do_sample, sampling.temperature) == (True, 1.0)
    ask(server, temperature=0.5, top_p=0.25)
    sampling = server.pipeline.of(Submit)[-1].spec.sampling
    assert (sampling.temperature, sampling.top_p) == (0.5, 0.25)
    ask(server, temperature=0)
    assert not server.pipeline.of(Submit)[-1].spec.sampling.do_sample


def test_a_salt_goes_along(server: Server) -> None:
    assert ask(server, cache_salt="s").status_code == 200
    assert server.pipeline.of(Submit)[-1].spec.cache_salt == "s"


CLOCK = {"type": "function", "function": {"name": "clock"}}


@pytest.mark.parametrize(
    ("given", "choice", "names"),
    [
        (None, None, ["weather", "clock"]),
        ("auto", "auto", ["weather", "clock"]),
        ("required", "required", ["weather", "clock"]),
        ("none", "none", []),
        ({"type": "function", "name": "clock"}, CLOCK, ["weather", "clock"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [OTHER]}, "required", ["clock"]),
    ],
)
def test_tool_choice(given: Any, choice: Any, names: list[str]) -> None:
    body = chat_of({"role": "user", "content": "a"}, tools=[TOOL, OTHER], tool_choice=given)
    assert body.tool_choice == choice
    assert [tool.function.name for tool in body.tools or []] == names
    if body.tools:
        assert body.tools[-1].function.description == "of a city"


def test_effort_and_verbosity_are_told_to_the_template() -> None:
    def told(**fields: Any) -> Any:
        body = chat_of({"role": "user", "content": "a"}, **fields)
        return body.reasoning_effort, body.chat_template_kwargs

    assert told() == (None, None)
    assert told(reasoning={"summary": "auto"}) == (None, None)
    assert told(reasoning={"effort": "none"}) == ("none", None)
    assert told(reasoning={"effort": "max"}) == ("max", None)
    assert told(text={"verbosity": "low"}) == (None, {"verbosity": "low"})
