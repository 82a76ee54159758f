"""The OpenAI routes of a running server."""

import re

from tests.end_to_end.harness import Server

QUESTION = {"role": "user", "content": "What is the capital of France?"}


def chat(server: Server, **fields: object) -> dict:
    body = {"model": "tgi", "messages": [QUESTION], "temperature": 0, "max_tokens": 40, **fields}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.body
    return answer.json()


def test_chat_knows_paris(server: Server) -> None:
    answer = chat(server)
    (choice,) = answer["choices"]
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert answer["object"] == "chat.completion"


def test_chat_stream(server: Server) -> None:
    whole = chat(server)["choices"][0]["message"]["content"]
    body = {
        "model": "dummy",
        "messages": [QUESTION],
        "temperature": 0,
        "max_tokens": 40,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events = server.post("/v1/chat/completions", body).events()
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] > 0
    chunks = events[:-2]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks) == whole
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len({c["id"] for c in chunks}) == 1


def test_completions_list_and_stream(server: Server) -> None:
    prompts = ["The capital of France is", "The capital of Italy is"]
    body = {"model": "tgi", "prompt": prompts, "temperature": 0, "max_tokens": 6}
    whole = server.post("/v1/completions", body).json()
    texts = {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert "Paris" in texts[0]
    assert "Rome" in texts[1]
    events = server.post("/v1/completions", {**body, "stream": True}).events()
    assert events[-1] == "[DONE]"
    for index in (0, 1):
        pieces = [
            choice["text"]
            for event in events[:-1]
            for choice in event["choices"]
            if choice["index"] == index
        ]
        assert "".join(pieces).startswith(texts[index])


def test_what_clients_of_vllm_send(server: Server) -> None:
    answers = ["größer", "Rome", "Paris \U0001f30d"]
    (choice,) = chat(server, guided_choice=answers)["choices"]
    assert choice["message"]["content"] in answers
    (choice,) = chat(server, structured_outputs={"regex": "[0-9]{3}"})["choices"]
    assert choice["message"]["content"].isdigit()
    sums = 'root ::= term "=" term\nterm ::= [0-9] ("+" [0-9]){2}'
    (choice,) = chat(server, guided_grammar=sums)["choices"]
    assert re.fullmatch(r"\d(\+\d){2}=\d(\+\d){2}", choice["message"]["content"])
    # So narrow, only the likeliest token is left to be drawn.
    likeliest = chat(server)["choices"][0]["message"]["content"]
    drawn = chat(server, temperature=1.5, min_p=1.0, seed=3)
    assert drawn["choices"][0]["message"]["content"] == likeliest


def test_a_token_of_the_clients_ends_the_text(server: Server) -> None:
    """It is no part of it, as a stop string is none, unless that is asked for."""
    body = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 20}
    whole = server.post("/v1/completions", {**body, "logprobs": 0}).json()["choices"][0]
    tokens = whole["logprobs"]["tokens"]
    ids = [token["id"] for token in server.post("/tokenize", {"inputs": whole["text"]}).json()]
    answer = server.post("/v1/completions", {**body, "stop_token_ids": [ids[-1], ids[1]]}).json()
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < len(tokens)
    assert whole["text"].startswith(choice["text"])
    shown = {**body, "stop_token_ids": [ids[-1], ids[1]], "include_stop_str_in_output": True}
    for streamed in (False, True):
        answer = server.post("/v1/completions", {**shown, "stream": streamed})
        events = answer.events()[:-1] if streamed else [answer.json()]
        text = "".join(part["text"] for event in events for part in event["choices"])
        assert whole["text"].startswith(text)
        assert len(text) > len(choice["text"])


def test_unsupported_fields_are_named(server: Server) -> None:
    for field, value in (("prompt_embeds", "x"), ("adapter_id", "x")):
        answer = server.post("/v1/chat/completions", {"messages": [QUESTION], field: value})
        assert answer.status == 422
        assert field in answer.body.decode()
