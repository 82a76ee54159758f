"""Traces at a real collector, logs of all processes, restarts: one server that has a bad day."""

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.collector import Collector, Received, grpc_collector
from tests.end_to_end.harness import Server, running, together

SECRET = "zanzibar"
"""In every prompt; in no line of the log."""
PARENT = "b7ad6b7169203331"
PARTS = {"validate", "queue", "prefill", "decode", "send"}


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Server, Collector]]:
    with grpc_collector() as collector, running(
        "--otlp-endpoint", collector.endpoint, "--otlp-service-name", "shop",
        "--num-frontends", "2", "--json-output", "--log-level", "debug",
    ) as server:  # fmt: skip
        yield server, collector
        everything_in_the_log_is_json_and_no_prompt(server)


def everything_in_the_log_is_json_and_no_prompt(server: Server) -> None:
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log]
    processes = {line["process"] for line in lines}
    assert processes >= {"launcher", "scheduler", "worker-0", "frontend", "tracer", "supervisor"}
    assert all({"timestamp", "level", "message"} <= line.keys() for line in lines)
    assert SECRET not in "\n".join(server.log)


def traced(number: int, *, is_sampled: bool = True) -> tuple[str, dict[str, str]]:
    """A trace of its own, and the header for it."""
    trace = f"{number:032x}"
    return trace, {"traceparent": f"00-{trace}-{PARENT}-{'01' if is_sampled else '00'}"}


def whole(collector: Collector, trace: str, path: str) -> dict[str, list[Received]]:
    """The spans of a trace, which hang together."""
    found = collector.of(trace)
    (root,) = found[f"POST {path}"]
    assert (root.parent_id, root.service) == (PARENT, "shop")
    for name in PARTS & found.keys():
        for span in found[name]:
            assert span.parent_id == root.span_id
            assert span.began_ns <= span.ended_ns
    return found


def test_a_request_is_one_trace_across_the_processes(scene: tuple[Server, Collector]) -> None:
    server, collector = scene
    trace, headers = traced(1)
    body = {"inputs": f"{SECRET} is", "parameters": {"max_new_tokens": 7}}
    details = server.post("/generate", body | {"parameters": {"max_new_tokens": 7, "details": True,
                          "decoder_input_details": False}}, headers=headers)  # fmt: skip
    assert details.status == 200
    server.until(lambda: len(collector.of(trace)) == 1 + len(PARTS))
    found = whole(collector, trace, "/generate")
    prompt = int(details.headers["x-prompt-tokens"])
    assert found["prefill"][0].attributes["gen_ai.usage.input_tokens"] == prompt
    assert found["validate"][0].attributes["gen_ai.usage.input_tokens"] == prompt
    generated = details.json()["details"]["generated_tokens"]
    assert found["decode"][0].attributes["gen_ai.usage.output_tokens"] == generated
    assert found["send"][0].attributes["gen_ai.usage.output_tokens"] == generated
    root, validate, queue, prefill, decode, send = (
        found[name][0]
        for name in ("POST /generate", "validate", "queue", "prefill", "decode", "send")
    )
    # Each process has a clock of its own; within one, the parts follow each other.
    assert (validate.began_ns, send.ended_ns) == (root.began_ns, root.ended_ns)
    assert (queue.ended_ns, prefill.ended_ns) == (prefill.began_ns, decode.began_ns)
    assert validate.ended_ns <= send.began_ns


def test_streams_and_several_sequences(scene: tuple[Server, Collector]) -> None:
    server, collector = scene
    trace, headers = traced(2)
    body = {"model": "tgi", "prompt": [f"{SECRET} a", f"{SECRET} b"], "max_tokens": 4}
    assert server.post("/v1/completions", body | {"stream": True}, headers=headers).status == 200
    server.until(lambda: len(collector.of(trace).get("decode", [])) == 2)
    server.until(lambda: "send" in collector.of(trace))
    assert len(whole(collector, trace, "/v1/completions")["prefill"]) == 2


def test_a_trace_that_is_not_sampled_is_only_logged(scene: tuple[Server, Collector]) -> None:
    server, collector = scene
    quiet, headers = traced(3, is_sampled=False)
    loud, more = traced(4)
    body = {"inputs": SECRET, "parameters": {"max_new_tokens": 2}}
    assert server.post("/generate", body, headers=headers).status == 200
    assert server.post("/generate", body, headers=more).status == 200
    server.until(lambda: "send" in collector.of(loud) and "decode" in collector.of(loud))
    assert collector.of(quiet) == {}
    server.until(lambda: any(f'"trace":"{quiet}"' in line for line in server.log))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"inputs": SECRET, "parameters": {"max_new_tokens": -1, "seed": SECRET}}),
        ("/generate", {"inputs": SECRET * 5000}),
        ("/generate", {"inputs": SECRET, "parameters": {"grammar": {"type": "regex",
                                                                    "value": f"({SECRET}"}}}),
        ("/generate", b'{"inputs": "' + SECRET.encode()),
        (f"/{SECRET}?{SECRET}", {"inputs": SECRET}),
        ("/v1/chat/completions", {"messages": [{"role": SECRET, "content": SECRET}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": SECRET}],
                                  "tools": [{"type": "function", "function": {"name": SECRET}}],
                                  "max_tokens": 3}),
        ("/generate_stream", {"inputs": SECRET, "parameters": {"max_new_tokens": 3,
                                                               "stop": [SECRET]}}),
    ],
)  # fmt: skip
def test_whatever_clients_send(scene: tuple[Server, Collector], path: str, body: object) -> None:
    server, _ = scene
    if SECRET in path:
        path = path.replace(SECRET, "nowhere")  # a path is logged, and is no prompt
    assert server.post(path, body).status in (200, 400, 404, 422)


def restarts(server: Server) -> dict[str, float]:
    """By series; none while there is no scheduler to ask."""
    name = "millrace_process_restarts_total"
    if server.get("/metrics").status != 200:
        return {}
    return {key: value for key, value in server.metrics().items() if key.startswith(name)}


def of(process: str) -> str:
    return f'millrace_process_restarts_total{{process="{process}"}}'


def test_deaths_are_counted_and_requests_go_on_as_one_trace(
    scene: tuple[Server, Collector],
) -> None:
    server, collector = scene
    trace, headers = traced(5)
    letters = {"type": "regex", "value": "[a-z ]{200}"}
    body = {"inputs": SECRET, "parameters": {"max_new_tokens": 150, "grammar": letters}}
    (worker,) = server.pids("-m worker")
    (scheduler,) = server.pids("-m scheduler")

    def call(number: int) -> int:
        if number == 0:
            return server.post("/generate_stream", body, headers=headers).status
        server.until(lambda: server.metrics()["tgi_batch_current_size"] == 1)
        os.kill(worker, signal.SIGKILL)
        return 0

    assert together(2, call)[0] == 200
    server.until(lambda: "decode" in collector.of(trace) and "send" in collector.of(trace), 40)
    (decode,) = whole(collector, trace, "/generate_stream")["decode"]
    assert decode.attributes["millrace.attempts"] == 2
    assert restarts(server)[of("worker-0")] == 1
    os.kill(scheduler, signal.SIGKILL)
    server.until(lambda: restarts(server).get(of("scheduler")) == 1, 40)
    assert restarts(server)[of("worker-0")] == 1
    server.until(lambda: server.get("/health").status == 200, 40)


def test_a_dead_collector_costs_one_line(scene: tuple[Server, Collector]) -> None:
    server, collector = scene
    collector.stop()
    body = {"inputs": SECRET, "parameters": {"max_new_tokens": 2}}
    for answer in together(4, lambda i: server.post("/generate", body)):
        assert answer.status == 200
    server.until(lambda: any("does not take spans" in line for line in server.log), 30)
    for answer in together(4, lambda i: server.post("/generate", body)):
        assert answer.status == 200
    complaints = [line for line in server.log if json.loads(line)["process"] == "tracer"]
    assert len([line for line in complaints if '"WARNING"' in line]) == 1
