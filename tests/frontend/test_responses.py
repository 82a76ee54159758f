"""``/v1/responses``: translation, answers, numbered events, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import RequestError
from common.messages import Accepted, Ended, Rejected, Submit
from frontend.schema import typed
from frontend.schema.openai import ChatBody
from frontend.schema.responses import ResponsesBody
from frontend.translate.responses import chat_body
from tests.frontend.fakes import TEMPLATE, Server, serve, write_model

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
OTHER = {"type": "function", "name": "clock", "description": "of a city", "strict": True}
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
THINKING = TEMPLATE + "{% if enable_thinking %}{# <think> </think> #}!{% endif %}"
LOGPROBS = ["message.output_text.logprobs"]


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


@pytest.fixture(scope="module")
def thinking_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("thinking"), template=THINKING)


def ask(server: Server, **fields: Any) -> Any:
    return server.post("/v1/responses", {"model": "some-model", "input": "hello", **fields})


def prompt(server: Server) -> str:
    """The text of the latest prompt."""
    spec = server.pipeline.of(Submit)[-1].spec
    return server.services.tokenizer.decode(spec.prompt_ids, skip_special_tokens=False)


def numbered(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which is named by its type and has the next number."""
    found: list[dict[str, Any]] = []
    for block in data.decode().split("\n\n")[:-1]:
        if block == ":":
            continue
        name, body = block.split("\n")
        document = json.loads(body.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        assert document["sequence_number"] == len(found)
        found.append(document)
    return found


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The response that a stream ends with, which is what its events have built."""
    created, running, *rest, last = events
    assert (created["type"], running["type"]) == ("response.created", "response.in_progress")
    assert created["response"] == running["response"]
    assert (created["response"]["status"], created["response"]["output"]) == ("in_progress", [])
    response = last["response"]
    assert last["type"] == f"response.{response['status']}"
    items: list[dict[str, Any]] = []
    while rest:
        items.append(_item(rest, index=len(items)))
    assert items == response["output"]
    fixed = ("id", "created_at", "model", "tools", "text", "temperature", "metadata")
    assert {key: response[key] for key in fixed} == {key: created["response"][key] for key in fixed}
    return response


def _item(events: list[dict[str, Any]], index: int) -> dict[str, Any]:
    """The next item of a stream; every event of it says where it belongs."""
    added = _next(events, "response.output_item.added", index)["item"]
    assert added["status"] == "in_progress"
    place = {"item_id": added["id"]}
    kind = added["type"]
    if kind == "function_call":
        assert added["arguments"] == ""
        stem, key = "response.function_call_arguments", "arguments"
        begun = {**added}
    else:
        assert added["content"] == []
        stem = {"message": "response.output_text", "reasoning": "response.reasoning_text"}[kind]
        key, place = "text", {**place, "content_index": 0}
        begun = {**_next(events, "response.content_part.added", index, **place)["part"]}
        assert begun["text"] == ""
    while events[0]["type"] == f"{stem}.delta":
        delta = _next(events, f"{stem}.delta", index, **place)
        begun[key] += delta["delta"]
        if "logprobs" in begun:
            begun["logprobs"] = begun["logprobs"] + delta["logprobs"]
    done = _next(events, f"{stem}.done", index, **place)
    assert done[key] == begun[key]
    if kind != "function_call":
        part = _next(events, "response.content_part.done", index, **place)["part"]
        assert part == begun
        begun = {**added, "content": [part]}
    item = _next(events, "response.output_item.done", index)["item"]
    assert item == {**begun, "status": item["status"]}
    return item


def _next(events: list[dict[str, Any]], kind: str, index: int, **place: Any) -> dict[str, Any]:
    event = events.pop(0)
    assert (event["type"], event["output_index"]) == (kind, index)
    assert {key: event[key] for key in place} == place
    return event


PREFIXES = {"message": "msg_", "reasoning": "rs_", "function_call": "fc_"}


def both(server: Server, **fields: Any) -> dict[str, Any]:
    """The answer, which is the same whole and as a stream."""
    whole = ask(server, **fields)
    assert whole.status_code == 200, whole.text
    stream = ask(server, stream=True, **fields)
    assert stream.headers["content-type"] == "text/event-stream"
    found = [whole.json, assembled(numbered(stream.content))]
    for response in found:
        assert response.pop("id").startswith("resp_")
        for item in response["output"]:
            assert item.pop("id").startswith(PREFIXES[item["type"]])
            assert item.pop("call_id", "call_").startswith("call_")
    assert found[0] == found[1]
    return found[0]


def chat_of(*items: dict[str, Any], **fields: Any) -> ChatBody:
    return chat_body(typed({"input": list(items), **fields}, ResponsesBody))


def message(text: str, status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"type": "message", "status": status, "role": "assistant", "content": [part]}


def texts(answer: dict[str, Any]) -> list[str]:
    """What the items say."""
    return [
        item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        for item in answer["output"]
    ]


# --- answers -------------------------------------------------------------------------------------


def test_whole_and_streamed(server: Server) -> None:
    answer = both(server)
    tokens = len(server.pipeline.of(Submit)[0].spec.prompt_ids)
    assert answer == {
        "object": "response",
        "created_at": 1_700_000_000,
        "completed_at": 1_700_000_000,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "some-model",
        "output": [message(" hello world")],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens + 3,
        },
        "user": None,
    }
    assert prompt(server) == "<|user|>hello\n<|assistant|>"
    server.pipeline.check_released(success=True)


def test_a_stream_has_no_terminator(server: Server) -> None:
    assert b"[DONE]" not in ask(server, stream=True).content


def test_the_answer_repeats_how_it_was_asked_for(server: Server) -> None:
    schema = {"type": "object"}
    format_ = {"type": "json_schema", "name": "thing", "schema": schema, "strict": True}
    fields = {
        "instructions": "be good",
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "prompt_cache_key": "key",
        "reasoning": {"effort": "low"},
        "safety_identifier": "me",
        "temperature": 0.5,
        "text": {"format": format_, "verbosity": "low"},
        "top_p": 0.25,
        "user": "you",
    }
    answer = both(server, store=True, **fields)
    assert {**answer, **fields, "reasoning": {"effort": "low", "summary": None}} == answer
    assert answer["store"] is False
    choice = {"type": "function", "name": "clock"}
    answer = both(server, tools=[TOOL, OTHER], tool_choice=choice, parallel_tool_calls=False)
    assert answer["tool_choice"] == choice
    assert answer["tools"] == [
        {**TOOL, "description": None, "strict": None},
        {**OTHER, "parameters": None},
    ]
    assert answer["parallel_tool_calls"] is False


def test_the_headers_are_those_of_every_generating_route(server: Server) -> None:
    answer = ask(server)
    assert answer.headers["x-generated-tokens"] == "3"
    assert answer.headers["x-compute-type"] == "cpu"
    assert ask(server, stream=True).headers["x-compute-characters"] == str(len(prompt(server)))


def test_max_output_tokens_ends_it(server: Server) -> None:
    answer = both(server, max_output_tokens=1)
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["completed_at"] is None
    assert answer["output"] == [message(" hello", status="incomplete")]
    assert server.pipeline.of(Submit)[-1].spec.max_new_tokens == 1


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_answer_is_a_message(model_dir: Path, text: str) -> None:
    assert both(serve(model_dir, text))["output"] == [message(text)]


def test_log_probabilities(model_dir: Path) -> None:
    server = serve(model_dir, " hello world")
    answer = both(server, include=LOGPROBS, top_logprobs=2)
    (part,) = answer["output"][0]["content"]
    assert [entry["token"] for entry in part["logprobs"]] == [" hello", " world"]
    assert [entry["logprob"] for entry in part["logprobs"]] == [-0.5, -1.0]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [2, 2]
    assert answer["top_logprobs"] == 2


def test_log_probabilities_are_those_of_the_text_alone(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test</think>\n\n hello world")
    answer = both(server, include=LOGPROBS)
    part = answer["output"][1]["content"][0]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"] == " hello world"
    assert "logprobs" not in answer["output"][0]["content"][0]


def test_tool_calls(model_dir: Path) -> None:
    server = serve(model_dir, f"{CALL}\n{CALL}")
    answer = both(server, tools=[TOOL, OTHER], tool_choice="required")
    call = {
        "type": "function_call",
        "status": "completed",
        "name": "weather",
        "arguments": '{"city": "Paris"}',
    }
    assert answer["output"] == [call, call]
    assert answer["status"] == "completed"
    output = ask(server, tools=[TOOL]).json["output"]
    assert len({item["call_id"] for item in output} | {item["id"] for item in output}) == 4


def test_a_call_that_is_cut_off(model_dir: Path) -> None:
    server = serve(model_dir, CALL)
    length = len(server.services.tokenizer.encode(CALL, add_special_tokens=False))
    answer = both(server, tools=[TOOL], max_output_tokens=length - 3)
    assert answer["status"] == "incomplete"
    (call,) = answer["output"]
    assert call["status"] == "incomplete"
    assert call["arguments"]
    assert '{"city": "Paris"}'.startswith(call["arguments"])


def test_text_and_calls_are_told_in_order(model_dir: Path) -> None:
    server = serve(model_dir, f"{CALL}\nhello")
    answer = both(server, tools=[TOOL])
    assert [item["type"] for item in answer["output"]] == ["function_call", "message"]
    assert texts(answer) == ['{"city": "Paris"}', "\nhello"]


def test_reasoning(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test</think>hello")
    answer = both(server, reasoning={"effort": "high", "summary": "auto"})
    assert answer["output"] == [
        {
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "test"}],
            "encrypted_content": None,
        },
        message("hello"),
    ]
    counts = answer["usage"]
    assert 0 < counts["output_tokens_details"]["reasoning_tokens"] < counts["output_tokens"] - 1
    assert prompt(server).endswith("<|assistant|>!")
    both(server, reasoning={"effort": "none"})
    assert prompt(server).endswith("<|assistant|>")


def test_reasoning_that_is_cut_off_stands_alone(thinking_dir: Path) -> None:
    server = serve(thinking_dir, "<think>test test test</think>hello")
    length = len(server.services.tokenizer.encode("<think>test test", add_special_tokens=False))
    answer = both(server, max_output_tokens=length)
    (item,) = answer["output"]
    assert (item["type"], item["status"]) == ("reasoning", "incomplete")
    assert texts(answer) == ["test test"]
    assert answer["usage"]["output_tokens_details"]["reasoning_tokens"] == length


def test_blank_text_between_reasoning_and_a_call_is_left_out(thinking_dir: Path) -> None:
    server = serve(thinking_dir, f"<think>test</think>\n\n \n{CALL}")
    answer = both(server, tools=[TOOL])
    assert [item["type"] for item in answer["output"]] == ["reasoning", "function_call"]


def test_a_format_is_a_grammar(server: Server) -> None:
    schema = {"type": "object", "required": ["a"]}
    checks = server.services.grammars.checks
    format_ = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    assert ask(server, text={"format": format_}).status_code == 200
    assert json.loads(checks[-1].text) == schema
    assert ask(server, text={"format": {"type": "json_object"}}).status_code == 200
    assert json.loads(checks[-1].text) == {"type": "object"}
    # tools that must not be called leave the text free to have a format
    forbidden = {"tools": [TOOL], "tool_choice": "none"}
    assert ask(server, text={"format": format_}, **forbidden).status_code == 200
    assert ask(server, text={"format": {"type": "text"}}, tools=[TOOL]).status_code == 200


# --- translation ---------------------------------------------------------------------------------


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


def part(text: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": text}


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
    def kwargs(**fields: Any) -> Any:
        return chat_of({"role": "user", "content": "a"}, **fields).chat_template_kwargs

    thinks = {"enable_thinking": True, "thinking": True}
    assert kwargs() is None
    assert kwargs(reasoning={"summary": "auto"}) is None
    assert kwargs(reasoning={"effort": "none"}) == {"enable_thinking": False, "thinking": False}
    assert kwargs(reasoning={"effort": "medium"}) == {**thinks, "reasoning_effort": "medium"}
    assert kwargs(reasoning={"effort": "minimal"}) == {**thinks, "reasoning_effort": "low"}
    assert kwargs(reasoning={"effort": "max"}) == {**thinks, "reasoning_effort": "high"}
    assert kwargs(text={"verbosity": "low"}) == {"verbosity": "low"}


# --- refusals ------------------------------------------------------------------------------------


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
