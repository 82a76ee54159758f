"""The doors of hosting platforms: SageMaker, Vertex AI, KServe."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import StartupError
from common.messages import Accepted, Cancel, Rejected, Submit
from tests.frontend.fakes import Server, events, serve

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def server(model_dir: Path) -> Server:
    return serve(model_dir)


def test_invocations_tell_the_requests_apart(server: Server) -> None:
    (native,) = server.post("/invocations", {"inputs": "a"}).json
    assert native == {"generated_text": "a hello world"}
    chat = server.post("/invocations", {"messages": MESSAGES}).json
    assert chat["choices"][0]["message"]["content"] == " hello world"
    completion = server.post("/invocations", {"prompt": "a"}).json
    assert completion["choices"][0]["text"] == " hello world"
    found = events(server.post("/invocations", {"inputs": "a", "stream": True}).content)
    assert found[-1]["generated_text"] == "a hello world"
    found = events(server.post("/invocations", {"messages": MESSAGES, "stream": True}).content)
    assert found[-1] == "[DONE]"
    server.pipeline.check_released(success=True)


@pytest.mark.parametrize("body", [{}, [], {"inputs": 3}, {"messages": []}, {"prompt": None}, 1])
def test_invocations_refuse_what_is_none_of_them(server: Server, body: Any) -> None:
    answer = server.post("/invocations", body)
    assert answer.status_code == 422
    assert answer.json["error_type"] == "validation"
    assert isinstance(answer.json["error"], str)


def test_vertex_answers_in_order(server: Server) -> None:
    body = {
        "instances": [
            {"inputs": "a", "parameters": {"max_new_tokens": 1}},
            {"messages": MESSAGES},
            {"inputs": "b", "parameters": {"do_sample": False}},
        ]
    }
    answer = server.post("/vertex", body)
    assert answer.json == {"predictions": [" hello", " hello world", " hello world"]}
    assert answer.headers["x-compute-characters"].isdigit()
    sampled = [m.spec.sampling.do_sample for m in server.pipeline.of(Submit)]
    assert sampled == [True, True, False]
    server.pipeline.check_released(success=True)


@pytest.mark.parametrize(
    "instances",
    [
        [],
        [{}],
        [{"inputs": ""}],
        [{"inputs": "a", "parameters": []}],
        [3],
        [{"messages": 1}],
        [{"messages": MESSAGES, "n": 2}],
        [{"inputs": "a"}] * 129,
    ],
)
def test_bad_instances(server: Server, instances: Any) -> None:
    answer = server.post("/vertex", {"instances": instances})
    assert answer.status_code == 422
    assert answer.json["error"].startswith("Input validation error: ")
    assert not server.pipeline.of(Submit)


def test_the_conversations_of_instances_are_read_in_the_servers_dialect(model_dir: Path) -> None:
    instances = [{"messages": MESSAGES, "n": 2, "prompt_embeds": "x", "logit_bias": [0.5]}]
    server = serve(model_dir, messages_api_dialect="tgi")
    assert server.post("/vertex", {"instances": instances}).json == {
        "predictions": [" hello world"]
    }
    answer = serve(model_dir).post("/vertex", {"instances": instances})
    assert answer.status_code == 422
    assert "prompt_embeds" in answer.json["error"]


@pytest.mark.parametrize(
    ("said", "arguments"),
    [('{"city": "Paris"}}', {"city": "Paris"}), ('{"city": "Par', '{"city": "Par')],
)
def test_calls_of_instances_are_json_wherever_they_are_cut(
    model_dir: Path, said: str, arguments: Any
) -> None:
    server = serve(model_dir, '{"name": "get_time", "arguments": ' + said)
    tools = [{"type": "function", "function": {"name": "get_time"}}]
    body = {"instances": [{"messages": MESSAGES, "tools": tools, "tool_choice": "required"}]}
    (prediction,) = server.post("/vertex", body).json["predictions"]
    assert json.loads(prediction) == {"name": "get_time", "arguments": arguments}


def test_one_refused_instance_fails_the_whole(server: Server) -> None:
    def refuse(submit: Submit) -> list[Any] | None:
        if submit.spec.max_new_tokens != 2:
            return None
        return [Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=2.0)]

    server.pipeline.answer = refuse
    server.pipeline.pause_s = 0.001
    instances = [{"inputs": "a", "parameters": {"max_new_tokens": n}} for n in (5, 2, 5)]
    answer = server.post("/vertex", {"instances": instances})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    server.pipeline.check_released()


def until(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.001)


def test_a_client_that_leaves_is_noticed_while_any_instance_runs(server: Server) -> None:
    def answer(submit: Submit) -> list[Any] | None:
        if submit.spec.max_new_tokens == 1:
            return None
        return [Accepted(id=submit.spec.id, attempt=0)]

    server.pipeline.answer = answer
    instances = [{"inputs": "a", "parameters": {"max_new_tokens": n}} for n in (5, 1, 6)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answered = gevent.spawn(
            server.post, "/vertex", {"instances": instances}, extras={"gunicorn.socket": ours}
        )
        until(lambda: len(server.pipeline.of(Submit)) == 3 and server.pipeline.link.live == 2)
        theirs.close()
        until(lambda: len(server.pipeline.of(Cancel)) == 2)
        cancelled = {message.id for message in server.pipeline.of(Cancel)}
        answered.kill()
    assert cancelled == {m.spec.id for m in server.pipeline.of(Submit) if m.spec.max_new_tokens > 1}
    server.pipeline.check_released()


def test_the_log_tells_the_tokens_of_all_instances(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "frontend.access")
    instances = [{"inputs": "a", "parameters": {"max_new_tokens": n}} for n in (1, 2, 3)]
    server.post("/vertex", {"instances": instances})
    assert "prompt_tokens=6 generated_tokens=6" in caplog.text


def test_the_paths_of_vertex(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "frontend.access")
    server = serve(model_dir, vertex_predict_route="/predict", vertex_health_route="/alive")
    body = {"instances": [{"inputs": "a"}]}
    assert server.get("/alive").status_code == 200
    assert caplog.text == "", "probes come every few seconds"
    assert server.post("/predict", body).json == {"predictions": [" hello world"]}
    assert "path=/predict status=200" in caplog.text
    serve(model_dir, vertex_predict_route="/vertex", vertex_health_route="/health")
    for path in ("/generate", "/", "/v1/models/x"):
        with pytest.raises(StartupError, match="another path"):
            serve(model_dir, vertex_predict_route=path)


def test_kserve_tells_about_itself(server: Server) -> None:
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"live": True}
    assert server.get("/v2").json["version"] == "1.2.3"
    assert server.get("/v2/models/m/versions/1").json == {
        "name": "m",
        "version": "1",
        "extensions": ["infer", "ready"],
    }
    assert server.get("/v2/models/m/ready").json == {"live": True}
    server.pipeline.status(2, ready=False)
    assert server.get("/v2/health/live").status_code == 200
    assert server.get("/v2/health/ready").status_code == 503


def test_kserve_infer(server: Server) -> None:
    body = {
        "id": "7",
        "inputs": [
            {"name": "a", "shape": [1], "datatype": "BYTES", "data": ["hello"]},
            {"name": "b", "shape": [1, 2], "datatype": "BYTES", "data": [[195, 164]]},
            {"name": "c", "shape": [2], "datatype": "BYTES", "data": [195, 164]},
        ],
        "outputs": [{"name": "x"}, {"name": "y"}, {"name": "z"}],
        "parameters": {"max_new_tokens": 1},
    }
    answer = server.post("/v2/models/m/infer", body).json
    assert answer["id"] == "7"
    assert [output["name"] for output in answer["outputs"]] == ["x", "y", "z"]
    assert answer["outputs"][0] == {
        "name": "x",
        "shape": [1, 1],
        "datatype": "BYTES",
        "data": [" hello"],
    }
    assert bytes(answer["outputs"][1]["data"]).decode() == " hello"
    prompts = {
        server.services.tokenizer.decode(m.spec.prompt_ids, skip_special_tokens=True)
        for m in server.pipeline.of(Submit)
    }
    assert prompts == {"hello", "\u00e4"}
    del body["outputs"]
    assert server.post("/v2/models/m/versions/2/infer", body).json["outputs"][2]["name"] == "c"


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"outputs": [{"name": "x"}, {"name": "y"}]},
        {"inputs": [{"name": "a", "data": []}]},
        {"inputs": [{"name": "a", "data": ["a", "b"]}]},
        {"inputs": [{"name": "a", "data": [255, 254]}]},
        {"inputs": [{"name": "a", "data": [256]}]},
        {"inputs": [{"name": "a", "data": [[]]}]},
        {"inputs": [{"name": "a", "data": ["x"], "datatype": "FP32"}]},
        {"parameters": {"top_p": 3}},
    ],
)
def test_bad_tensors(server: Server, change: dict[str, Any]) -> None:
    body = {"inputs": [{"name": "a", "data": ["hello"]}], **change}
    answer = server.post("/v2/models/m/infer", body)
    assert answer.status_code == 422
    assert set(answer.json) == {"error"}
    assert not server.pipeline.of(Submit)
