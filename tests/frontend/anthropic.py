"""What the tests of ``/v1/messages`` share: asking, and streams put together again."""

import json
from typing import Any

from common.messages import Submit
from frontend.schema import typed
from frontend.schema.messages import CountTokensBody
from frontend.schema.openai import ChatBody
from frontend.translate.messages import prompt_body
from tests.frontend.fakes import Server

MESSAGES = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "of a city", "input_schema": {"type": "object"}}
OTHER = {"name": "clock", "input_schema": {"type": "object"}}
CALL = '{"name": "weather", "arguments": {"city": "Paris"}}'
IMAGE = {"type": "image", "source": {"type": "url", "url": "http://a/b.png"}}


def ask(server: Server, **fields: Any) -> Any:
    body = {"model": "some-model", "max_tokens": 100, "messages": MESSAGES, **fields}
    return server.post("/v1/messages", body)


def prompt(server: Server) -> str:
    """The text of the latest prompt."""
    spec = server.pipeline.of(Submit)[-1].spec
    return server.services.tokenizer.decode(spec.prompt_ids, skip_special_tokens=False)


def named(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which is named by its type."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        if block == ":":
            continue
        name, body = block.split("\n")
        document = json.loads(body.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        found.append(document)
    return found


def assembled(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, put together as a client does, with every rule of the order."""
    start, ping, *rest, delta, stop = events
    assert (start["type"], ping["type"]) == ("message_start", "ping")
    assert (delta["type"], stop["type"]) == ("message_delta", "message_stop")
    message, opened = start["message"], False
    assert message["content"] == []
    assert message["stop_reason"] is None
    for event in rest:
        kind, index = event["type"], event["index"]
        assert opened == (kind != "content_block_start")
        if kind == "content_block_start":
            assert index == len(message["content"])
            message["content"].append({**event["content_block"], "json": ""})
            opened = True
            continue
        assert index == len(message["content"]) - 1
        opened = kind == "content_block_delta"
        if opened:
            block, more = message["content"][-1], dict(event["delta"])
            assert more.pop("type") in DELTAS[block["type"]]
            ((key, text),) = more.items()
            key = "json" if key == "partial_json" else key
            block[key] += text
    assert not opened
    for block in message["content"]:
        arguments = block.pop("json")
        if arguments:
            block["input"] = json.loads(arguments)
    return {**message, **delta["delta"], "usage": delta["usage"]}


DELTAS = {
    "text": ["text_delta"],
    "thinking": ["thinking_delta", "signature_delta"],
    "tool_use": ["input_json_delta"],
}


def both(server: Server, **fields: Any) -> dict[str, Any]:
    """The answer, which is the same whole and as a stream."""
    whole = ask(server, **fields)
    assert whole.status_code == 200, whole.text
    stream = ask(server, stream=True, **fields)
    assert stream.headers["content-type"] == "text/event-stream"
    found = [whole.json, assembled(named(stream.content))]
    for message in found:
        assert message.pop("id").startswith("msg_")
        for block in message["content"]:
            assert block.pop("id", "toolu_").startswith("toolu_")
    assert found[0] == found[1]
    return found[0]


def chat_of(*messages: dict[str, Any], **fields: Any) -> ChatBody:
    return prompt_body(typed({"messages": list(messages), **fields}, CountTokensBody))


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
