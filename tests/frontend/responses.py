"""What the tests of ``/v1/responses`` share: asking, and streams put together again."""

import json
from typing import Any

from common.messages import Submit
from frontend.schema import typed
from frontend.schema.openai import ChatBody
from frontend.schema.responses import ResponsesBody
from frontend.translate.responses import chat_body
from tests.frontend.fakes import Server

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
OTHER = {"type": "function", "name": "clock", "description": "of a city", "strict": True}
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
LOGPROBS = ["message.output_text.logprobs"]


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


def part(text: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": text}
