"""What TGI's own tests and clients rely on, one test per item, over plain HTTP.

Chat is asked on a server whose chat answers have TGI's form.
"""

import json
from typing import Any

import pytest

from tests.clients.talk import GET_WEATHER, PERSON, QUESTION, USER, WEATHER
from tests.end_to_end.harness import Answer, Server

pytestmark = pytest.mark.client("HTTP (TGI's checklist)")

CHAT = "/v1/chat/completions"
EXCLUSIVE = {
    "error": "Tool error: Grammar and tools are mutually exclusive",
    "error_type": "tool_error",
}


def chat(server: Server, **fields: Any) -> Answer:
    body = {"model": "tgi", "messages": [USER], "temperature": 0.0, "max_tokens": 60, **fields}
    return server.post(CHAT, body)


def content(answer: Answer) -> str:
    assert answer.status == 200, answer.body
    return str(answer.json()["choices"][0]["message"]["content"])


def chunks(answer: Answer) -> list[Any]:
    """The chunks of a stream that ends as it should."""
    assert answer.status == 200, answer.body
    *found, end = answer.events()
    assert end == "[DONE]"
    return found


def test_1_readiness_probe(server: Server) -> None:
    parameters = {
        "details": True,
        "do_sample": False,
        "max_new_tokens": 20,
        "return_full_text": False,
        "best_of": None,
        "seed": None,
        "stop": [],
        "watermark": False,
    }
    answer = server.post("/", {"inputs": "test", "stream": False, "parameters": parameters})
    assert answer.status == 200
    (only,) = answer.json()
    assert only["details"]["generated_tokens"] > 0


@pytest.mark.parametrize(
    "knob", [{"do_sample": True}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.9}], ids=str
)
def test_2_seed(server: Server, knob: dict[str, Any]) -> None:
    greedy = server.generate(QUESTION, max_new_tokens=3, details=True, seed=7)
    assert greedy["details"]["seed"] is None
    drawn = server.generate(QUESTION, max_new_tokens=3, details=True, seed=7, **knob)
    assert drawn["details"]["seed"] == 7


def test_3_stop_sequence(server: Server) -> None:
    """The built-in model says other words than the one that TGI's test waits for."""
    answer = server.generate(
        QUESTION, max_new_tokens=40, stop=["France"], return_full_text=True, details=True
    )
    assert answer["generated_text"].startswith(QUESTION)
    assert answer["generated_text"].endswith("France")
    assert answer["details"]["finish_reason"] == "stop_sequence"


def test_4_prompts(server: Server) -> None:
    body = {"model": "tgi", "max_tokens": 5, "temperature": 0}
    four = server.post("/v1/completions", {**body, "prompt": ["a", "b", "c", "d"]})
    assert sorted(choice["index"] for choice in four.json()["choices"]) == [0, 1, 2, 3]
    five = server.post("/v1/completions", {**body, "prompt": ["a", "b", "c", "d", "e"]})
    assert five.status == 422
    assert five.json()["error_type"] == "batch size exceeded"


def test_5_usage_of_a_chat_stream(tgi_server: Server) -> None:
    options = {"include_usage": True}
    *head, last = chunks(chat(tgi_server, stream=True, stream_options=options))
    assert last["choices"] == []
    assert [chunk["usage"] for chunk in head] == [None] * len(head)
    assert last["usage"]["completion_tokens"] == len(head)
    assert head[-1]["choices"][0]["finish_reason"] == "stop"
    delta = {"role": "assistant", "content": "", "tool_calls": None}
    assert head[-1]["choices"][0]["delta"] == delta


def test_5_usage_is_null_if_nobody_asked(tgi_server: Server) -> None:
    found = chunks(chat(tgi_server, stream=True))
    assert [chunk["usage"] for chunk in found] == [None] * len(found)
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in found)
    assert all(chunk["id"] == "" for chunk in found)


@pytest.mark.parametrize("stream", [False, True])
def test_6_tools_and_a_format_exclude_each_other(tgi_server: Server, stream: bool) -> None:
    form = {"type": "json_object", "value": PERSON}
    answer = chat(tgi_server, tools=[], response_format=form, stream=stream)
    assert answer.status == 422
    assert answer.json() == EXCLUSIVE


def test_7_the_names_of_a_format_mean_the_same(tgi_server: Server) -> None:
    message = {"role": "user", "content": "Anna is 31 years old. Write this as JSON."}
    reversed_keys = {**PERSON, "properties": dict(reversed(PERSON["properties"].items()))}
    forms = [
        {"type": "json_object", "value": reversed_keys},
        {"type": "json", "value": reversed_keys},
        {"type": "json_schema", "value": {"name": "person", "schema": reversed_keys}},
    ]
    texts = [content(chat(tgi_server, messages=[message], response_format=form)) for form in forms]
    assert texts[0] == texts[1] == texts[2]
    assert list(json.loads(texts[0])) == ["age", "name"]


def test_8_the_assistants_last_message_is_continued(tgi_server: Server) -> None:
    begun = {"role": "assistant", "content": "The capital of France is"}
    said = content(chat(tgi_server, messages=[USER, begun]))
    assert said.startswith(" Paris")


def test_9_tool_call(tgi_server: Server) -> None:
    request = {"messages": [WEATHER], "tools": [GET_WEATHER], "tool_choice": "get_weather"}
    choice = chat(tgi_server, **request).json()["choices"][0]
    assert choice["message"].get("content") is None
    (call,) = choice["message"]["tool_calls"]
    assert call["id"] == "0"
    arguments = call["function"]["arguments"]
    assert arguments == json.dumps(json.loads(arguments), separators=(",", ":"))
    assert json.loads(arguments) == {"city": "Paris"}

    deltas = [
        chunk["choices"][0]["delta"] for chunk in chunks(chat(tgi_server, stream=True, **request))
    ]
    calls = [delta["tool_calls"][0] for delta in deltas]
    assert all(delta.get("content") is None for delta in deltas)
    assert calls[0]["function"]["name"] == "get_weather"
    assert {call["function"]["name"] for call in calls[1:]} == {None}
    assert {call["id"] for call in calls} == {"0"}
    assert json.loads("".join(c["function"]["arguments"] for c in calls)) == {"city": "Paris"}


def test_10_a_call_and_its_result_are_accepted(tgi_server: Server) -> None:
    function = {"name": "get_weather", "arguments": {"city": "Paris"}}
    calls = [{"id": "0", "type": "function", "function": function}]
    messages = [
        WEATHER,
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "0", "content": '{"temperature": 21, "sky": "sunny"}'},
    ]
    assert "sunny" in content(chat(tgi_server, messages=messages))


def test_11_a_budget_beyond_the_context(server: Server) -> None:
    """As in TGI, what counts is whether the first 1,024 new tokens fit behind the prompt."""
    limit = server.get("/info").json()["max_total_tokens"]
    body = {"inputs": "a " * (limit - 1000), "parameters": {"max_new_tokens": limit}}
    whole = server.post("/generate", body)
    assert whole.status == 422
    assert whole.json()["error_type"] == "validation"
    assert "tokens" in whole.json()["error"]
    streamed = server.post("/generate_stream", body)
    assert streamed.status == 200
    (event,) = streamed.events()
    assert event == whole.json()


def test_12_the_models_name(tgi_server: Server) -> None:
    name = tgi_server.get("/info").json()["model_id"]
    assert chat(tgi_server, model="tgi").json()["model"] == name
    assert chat(tgi_server, model="another").json()["model"] == "another"
