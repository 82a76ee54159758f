"""Streams that are taken up: whatever was read before, the rest is the same to the byte."""

from pathlib import Path
from typing import Any

import falcon.testing
import gevent
import pytest

from common.keys import digest
from common.messages import (
    Accepted,
    Cancel,
    Delivered,
    Ended,
    Replay,
    Resume,
    SequenceTokens,
    Submit,
    Tally,
)
from frontend.resume.past import PIECE_TOKENS
from frontend.text.tokenizer import Tokenizer
from tests.frontend.fakes import Server, events, serve, write_model
from tests.frontend.resume.keeper import Keeper, blocks, keeping

REPLY = " hello world Paris stop here test"
EMPTY = {"type": "object", "properties": {}}
LOOK = {"name": "look", "parameters": EMPTY}
TOOL = {"type": "function", "function": LOOK}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
SURFACES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "native": ("/generate_stream", {
        "inputs": "hello",
        "parameters": {"details": True, "top_n_tokens": 2, "do_sample": True},
    }, {}),
    "native, stop string": ("/generate_stream", {
        "inputs": "hello", "parameters": {"stop": ["Paris"]},
    }, {}),
    "root": ("/", {"inputs": "hello", "stream": True}, {}),
    "chat": ("/v1/chat/completions", {
        **CHAT, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2,
    }, {}),
    "chat, 2 choices": ("/v1/chat/completions", {**CHAT, "n": 2}, {}),
    "chat, stop string": ("/v1/chat/completions", {**CHAT, "stop": "Par"}, {}),
    "chat as TGI": ("/v1/chat/completions", CHAT, {"messages_api_dialect": "tgi"}),
    "completions": ("/v1/completions", {
        "prompt": ["hello", "world"], "stream": True, "logprobs": 1, "echo": False,
    }, {}),
    "responses": ("/v1/responses", {"input": "hello", "stream": True}, {}),
    "messages": ("/v1/messages", {
        "model": "m", "max_tokens": 50, "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
    }, {}),
    "invocations": ("/invocations", {"inputs": "hello", "stream": True}, {}),
}  # fmt: skip
TWO_CALLS = ("/v1/chat/completions", {**CHAT, "n": 2, "tools": [TOOL]}, {})
CALL = '{"name": "look", "arguments": {"a": "b"}}'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "model")


def kept(model: Path, reply: str = REPLY, **changes: Any) -> tuple[Server, Keeper]:
    server = serve(model, reply, sse_event_ids=True, **changes)
    return server, keeping(server)


def again(server: Server, path: str, event_id: str, body: Any = None) -> falcon.testing.Result:
    headers = {"Last-Event-ID": event_id}
    if body is None:
        return server.client.simulate_post(path, headers=headers)
    return server.client.simulate_post(path, json=body, headers=headers)


@pytest.mark.parametrize("name", SURFACES)
@pytest.mark.parametrize("known", [None, 0, 3])
def test_after_every_event(model: Path, name: str, known: int | None) -> None:
    """``known``: so much had the scheduler heard of; the rest is generated once more."""
    path, body, changes = SURFACES[name]
    server, keeper = kept(model, **changes)
    server.pipeline.cached_tokens = 1
    answer = server.post(path, body)
    server.pipeline.cached_tokens = 0
    assert answer.status_code == 200, answer.text
    whole = blocks(answer.content)
    assert len(whole) >= 3
    assert all(event_id for event_id, _ in whole)
    assert len({event_id for event_id, _ in whole}) == len(whole)
    keeper.known = known
    by_choice = "2 choices" in name or name == "completions"
    for number, (event_id, _) in enumerate(whole):
        before = dict(keeper.kept)
        rest = blocks(again(server, path, event_id).content)
        expected = whole[number + 1 :]
        if by_choice:  # choices are generated at once, in any order
            assert sorted(text for _, text in rest) == sorted(text for _, text in expected)
        else:
            assert rest == expected, event_id
        keeper.kept = before
    assert server.pipeline.link.live == 0


@pytest.mark.parametrize("name", ["chat, 2 choices", "completions", "native", "chat, 2 calls"])
def test_after_two_losses(model: Path, name: str) -> None:
    """The second one while what was generated before is still told, run by run."""
    path, body, changes = SURFACES.get(name, TWO_CALLS)
    server, keeper = kept(model, CALL if body is TWO_CALLS[1] else REPLY, **changes)
    whole = blocks(server.post(path, body).content)
    all_of_it = sorted(text for _, text in whole)
    for number, (event_id, _) in enumerate(whole):
        middle = blocks(again(server, path, event_id).content)
        for more, (next_id, _) in enumerate(middle):
            last = blocks(again(server, path, next_id).content)
            read = whole[: number + 1] + middle[: more + 1] + last
            assert sorted(text for _, text in read) == all_of_it, (event_id, next_id)
    assert keeper.kept


@pytest.mark.parametrize(
    ("path", "named", "body"),
    [
        ("/v1/chat/completions", b'"call_', {"tools": [TOOL]}),
        ("/v1/responses", b'"fc_', {"input": "hello", "tools": [{"type": "function", **LOOK}]}),
        ("/v1/messages", b'"toolu_', {
            "model": "m", "max_tokens": 90, "tools": [{"name": "look", "input_schema": EMPTY}],
        }),
    ],
)  # fmt: skip
def test_a_call_keeps_its_id(model: Path, path: str, named: bytes, body: dict[str, Any]) -> None:
    server, keeper = kept(model, CALL)
    asked = {"stream": True, **({} if "input" in body else CHAT), **body}
    answer = server.post(path, asked)
    whole = blocks(answer.content)
    assert any(named in text for _, text in whole), answer.text
    for number, (event_id, _) in enumerate(whole):
        assert blocks(again(server, path, event_id).content) == whole[number + 1 :]
    assert keeper.kept


def test_off_there_are_no_ids_and_the_header_says_nothing(model: Path) -> None:
    server = serve(model, REPLY)
    answer = server.client.simulate_post(
        "/generate_stream", json={"inputs": "hello"}, headers={"Last-Event-ID": "whatever"}
    )
    assert answer.status_code == 200
    assert b"id: " not in answer.content
    assert [submit.keep for submit in server.pipeline.of(Submit)] == [None]


def test_whole_answers_are_not_kept(model: Path) -> None:
    server, _ = kept(model)
    assert server.post("/generate", {"inputs": "hello"}).status_code == 200
    assert [submit.keep for submit in server.pipeline.of(Submit)] == [None]


def test_the_body_may_be_repeated_but_not_changed(model: Path) -> None:
    server, _ = kept(model)
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 5}}
    event_id = blocks(server.post("/generate_stream", body).content)[1][0]
    turned = {"parameters": {"max_new_tokens": 5}, "inputs": "hello"}
    assert again(server, "/generate_stream", event_id, turned).status_code == 200
    refused = again(server, "/generate_stream", event_id, {"inputs": "world"})
    assert refused.status_code == 422
    assert "Last-Event-ID" in refused.json["error"]


@pytest.mark.parametrize("event_id", ["1", "0" * 32, f"{'0' * 32}:1.1+5.0"])
def test_what_is_no_event_id(model: Path, event_id: str) -> None:
    server, _ = kept(model)
    refused = again(server, "/generate_stream", event_id)
    assert refused.status_code == 400
    assert "no event id" in refused.json["error"]
    assert server.pipeline.of(Resume) == []


def test_what_is_not_there(model: Path) -> None:
    server, _ = kept(model)
    for path in ("/generate_stream", "/v1/chat/completions", "/v1/messages"):
        refused = again(server, path, f"{'0' * 32}:1")
        assert refused.status_code == 410
        assert "cannot be taken up" in refused.text


def test_another_path_and_another_key(model: Path) -> None:
    keys = [digest(b"mine"), digest(b"yours")]
    server, _ = kept(model, api_key_digests=keys)
    mine, yours = ({"Authorization": f"Bearer {key}"} for key in ("mine", "yours"))
    post = server.client.simulate_post
    answer = post("/generate_stream", json={"inputs": "hello"}, headers=mine)
    event = {"Last-Event-ID": blocks(answer.content)[0][0]}
    assert post("/generate_stream", headers={**yours, **event}).status_code == 410
    assert post("/v1/completions", headers={**mine, **event}).status_code == 410
    assert post("/generate_stream", headers={**mine, **event}).status_code == 200
    assert post("/generate_stream", headers=event).status_code == 401


def test_keys_that_nobody_asks_for_say_nothing(model: Path) -> None:
    server, _ = kept(model)
    event_id = blocks(server.post("/generate_stream", {"inputs": "hello"}).content)[0][0]
    headers = {"Last-Event-ID": event_id, "Authorization": "Bearer whatever"}
    assert server.client.simulate_post("/generate_stream", headers=headers).status_code == 200


def test_behind_an_error_nobody_can_go_on(model: Path) -> None:
    server, _ = kept(model)

    def fails(submit: Submit) -> Any:
        yield Accepted(submit.spec.id, 0)
        gevent.sleep(0.01)
        yield Replay([SequenceTokens(submit.spec.id, 0, 0, [50], [-0.5])])
        gevent.sleep(0.01)
        yield Ended(submit.spec.id, 0, "failed")

    server.pipeline.answer = fails
    *told, error, usage, done = blocks(server.post(*SURFACES["chat"][:2]).content)
    assert all(event_id for event_id, _ in told)
    assert [event_id for event_id, _ in (error, usage, done)] == [""] * 3
    assert b"content" in told[-1][1]


def test_a_number_of_runs_that_does_not_fit(model: Path) -> None:
    server, keeper = kept(model)
    server.post("/generate_stream", {"inputs": "hello"})
    assert again(server, "/generate_stream", f"{keeper.ticket}:1.1").status_code == 400


def test_a_silent_scheduler(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend.resume.keeping.ANSWER_LIMIT_S", 0.01)
    server, keeper = kept(model)
    monkeypatch.setattr(server.pipeline.link, "_send", lambda message: None)
    refused = again(server, "/generate_stream", f"{'0' * 32}:1")
    assert refused.status_code == 503
    assert keeper.kept == {}


def test_a_stream_that_is_taken_up_counts_as_the_same_request(model: Path) -> None:
    server, keeper = kept(model)
    event_id = blocks(server.post("/generate_stream", {"inputs": "hello"}).content)[0][0]
    keeper.known = 2
    assert again(server, "/generate_stream", event_id).status_code == 200
    server.pipeline.link.flush()
    assert sum(tally.requests for tally in server.pipeline.of(Tally)) == 1
    assert len(server.pipeline.of(Submit)) == 2
    assert len(server.pipeline.of(Delivered)) == 2


def test_what_is_known_is_not_generated_again(model: Path) -> None:
    server, keeper = kept(model)
    event_id = blocks(server.post("/generate_stream", {"inputs": "hello"}).content)[0][0]
    again(server, "/generate_stream", event_id)
    assert len(server.pipeline.of(Submit)) == 1, "all of it was there"
    keeper.known = 4
    again(server, "/generate_stream", event_id)
    submit = server.pipeline.of(Submit)[-1]
    assert len(submit.generated_ids) == len(submit.keep.logprobs) == 4
    assert server.pipeline.of(Cancel) == []


def test_the_identity_survives(model: Path) -> None:
    server, keeper = kept(model)
    ids = Tokenizer.load(str(model)).encode(REPLY, add_special_tokens=False)
    answer = server.post("/v1/chat/completions", CHAT)
    first = blocks(answer.content)[0]
    assert len(ids) > 3
    rest = again(server, "/v1/chat/completions", first[0])
    name = first[1].split(b'"id":"')[1].split(b'"')[0]
    assert rest.content.count(name) == len(blocks(rest.content)) - 1, "all chunks but [DONE]"
    assert keeper.memo


def test_a_client_that_was_told_all_tokens_but_not_the_end(model: Path) -> None:
    """As after a loss at the very end: the end came alone, and so it is told."""
    server, keeper = kept(model)
    whole = blocks(server.post("/generate_stream", {"inputs": "hello"}).content)
    last = whole[-1][0]
    assert last.endswith("e")
    rest = blocks(again(server, "/generate_stream", last.removesuffix("e")).content)
    (told,) = events(b"data: " + rest[0][1].removeprefix(b"data: ") + b"\n\n")
    assert told["generated_text"] == REPLY
    assert len(rest) == 1
    assert blocks(again(server, "/generate_stream", last).content) == []
    assert keeper.kept


def test_a_long_stream_is_read_again_in_pieces(model: Path) -> None:
    server, keeper = kept(model, "x" * (2 * PIECE_TOKENS + 9), max_total_tokens=4096)
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 3000}}
    whole = blocks(server.post("/generate_stream", body).content)
    assert len(whole) > 2 * PIECE_TOKENS
    for number in (0, PIECE_TOKENS - 1, PIECE_TOKENS, 2 * PIECE_TOKENS + 3):
        rest = blocks(again(server, "/generate_stream", whole[number][0]).content)
        assert rest == whole[number + 1 :]
    assert keeper.kept
