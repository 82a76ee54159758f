"""Bad input gets a clear error and costs nobody else anything."""

import http.client
import json
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.harness import Server, running, together

COMPLETIONS = "/v1/completions"
GOOD = {"inputs": "What is the capital of France?", "parameters": {"max_new_tokens": 16}}
LONG = {"prompt": "Once", "max_tokens": 1900, "temperature": 0, "ignore_eos": True}
"""Runs for seconds: nothing but its client's departure can end it soon."""


def is_quiet(server: Server) -> bool:
    """Nothing runs or waits, and every KV block is free or cached."""
    series = server.metrics()
    used = series['millrace_kv_blocks{replica="0",state="used"}']
    return series["tgi_batch_current_size"] == series["tgi_queue_size"] == used == 0


def dropped(server: Server) -> float:
    """Requests whose client was found to be gone."""
    return server.metrics().get('tgi_request_failure{err="dropped"}', 0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 422),
        (b'{"inputs": "\\ud800"}', 400),
        ({"inputs": 3}, 422),
        ({"parameters": {}}, 422),
        ({"inputs": ""}, 422),
        ({"inputs": "a", "parameters": None}, 422),
        ({"inputs": "a", "parameters": {"max_new_tokens": "3"}}, 422),
        ({"inputs": "a", "parameters": {"max_new_tokens": 20.0}}, 422),
        ({"inputs": "a", "parameters": {"max_new_tokens": 0}}, 422),
        ({"inputs": "a", "parameters": {"temperature": 0}}, 422),
        ({"inputs": "a", "parameters": {"top_p": 1.0}}, 422),
        ({"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "(a"}}}, 422),
        ({"inputs": "word " * 3000}, 422),
        (b'{"inputs": "' + b"a" * 2_100_000 + b'"}', 413),
    ],
)
def test_bad_bodies(server: Server, body: object, status: int) -> None:
    answer = server.post("/generate", body)
    assert answer.status == status, answer.body
    error = answer.json()
    assert isinstance(error["error"], str)
    assert error["error"]
    assert isinstance(error["error_type"], str)


def test_bad_requests_in_streams_are_events(server: Server) -> None:
    answer = server.post("/generate_stream", {"inputs": "", "parameters": {}})
    assert answer.status == 200
    (event,) = answer.events()
    assert event["error_type"] == "validation"
    assert event["error"].startswith("Input validation error: ")


def test_wrong_path_method_and_content_type(server: Server) -> None:
    assert server.get("/nothing").status == 404
    assert server.request("PUT", "/generate").status == 405
    answer = server.post("/generate", b"{}", headers={"content-type": "text/plain"})
    assert answer.status == 415


def test_garbage_on_the_port(server: Server) -> None:
    for sent in (b"\0" * 4096, b"GET / HTTP/9.9\r\n\r\n", b"POST /generate HTTP/1.1\r\nHost"):
        with socket.create_connection(("127.0.0.1", server.port), 5) as client:
            client.sendall(sent)
    assert server.generate(GOOD["inputs"], max_new_tokens=16)


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """One sequence at a time, prompts read in small chunks."""
    with running("--max-batch-size", "1", "--max-batch-prefill-tokens", "16") as started:
        yield started


def open_stream(server: Server, path: str, body: dict) -> socket.socket:
    """A raw connection with a request on it, nothing read yet."""
    data = json.dumps(body).encode()
    client = socket.create_connection(("127.0.0.1", server.port), 10)
    client.sendall(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return client


@pytest.mark.parametrize("stream", [True, False])
def test_vanishing_clients_free_their_place(server: Server, stream: bool) -> None:
    """Six that decode."""
    before = dropped(server)
    clients = [open_stream(server, COMPLETIONS, {**LONG, "stream": stream}) for _ in range(6)]
    server.until(lambda: server.metrics()["tgi_batch_current_size"] == 6)
    for client in clients:
        client.close()
    server.until(lambda: is_quiet(server))
    assert dropped(server) == before + 6


PREFILLS = 'tgi_batch_inference_count{method="prefill"}'


@pytest.mark.parametrize("stream", [True, False])
def test_clients_vanish_while_they_wait(narrow: Server, stream: bool) -> None:
    """One that decodes, three in the queue behind it: those leave first, then the first."""
    before, reads = dropped(narrow), narrow.metrics()[PREFILLS]
    body = {**LONG, "stream": stream}
    clients = [open_stream(narrow, COMPLETIONS, body)]
    narrow.until(lambda: narrow.metrics()[PREFILLS] > reads)
    clients += [open_stream(narrow, COMPLETIONS, body) for _ in range(3)]
    narrow.until(
        lambda: (
            narrow.metrics()["tgi_queue_size"] == 3
            and narrow.metrics()["tgi_batch_current_size"] == 1
        )
    )
    running = narrow.metrics()[PREFILLS]
    for client in clients[1:]:
        client.close()
    narrow.until(lambda: narrow.metrics()["tgi_queue_size"] == 0)
    assert narrow.metrics()[PREFILLS] == running
    clients[0].close()
    narrow.until(lambda: is_quiet(narrow))
    assert dropped(narrow) == before + 4


def test_a_client_vanishes_while_its_prompt_is_read(narrow: Server) -> None:
    """Chunks of 16 tokens: reading 900 of them takes many steps."""
    before = narrow.metrics()
    prompt = {**LONG, "prompt": " ".join(str(i % 10) for i in range(450)), "max_tokens": 1000}
    client = open_stream(narrow, COMPLETIONS, prompt)
    narrow.until(lambda: narrow.metrics()["tgi_batch_current_size"] == 1)
    client.close()
    narrow.until(lambda: is_quiet(narrow))
    name = "tgi_request_generated_tokens_count"
    assert narrow.metrics().get(name, 0) == before.get(name, 0)
    assert dropped(narrow) == before.get('tgi_request_failure{err="dropped"}', 0) + 1


def test_slow_clients_hold_up_nobody(server: Server) -> None:
    """Half a request each, and readers that never read."""
    slow = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(50)]
    for client in slow:
        client.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
    deaf = [open_stream(server, COMPLETIONS, {**LONG, "stream": True}) for _ in range(4)]
    assert server.generate(GOOD["inputs"], max_new_tokens=16)
    for client in [*slow, *deaf]:
        client.close()
    server.until(lambda: is_quiet(server))


def test_thousands_of_connections(server: Server) -> None:
    """10,000 idle ones (fewer where the limit on open files is lower), and some that ask."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)
    idle: list[socket.socket] = []
    try:
        for _ in range(count):
            idle.append(socket.create_connection(("127.0.0.1", server.port), 20))
        answers = together(8, lambda _: server.post("/generate", GOOD))
        assert {answer.status for answer in answers} == {200}
    finally:
        for client in idle:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server.get("/health").status == 200


def test_overload_is_refused_with_a_hint(server: Server) -> None:
    """The server allows 64 at once."""
    clients = [open_stream(server, COMPLETIONS, {**LONG, "stream": True}) for _ in range(64)]
    try:
        server.until(
            lambda: (
                sum(server.metrics()[name] for name in ("tgi_batch_current_size", "tgi_queue_size"))
                >= 64
            )
        )
        refused = server.post("/generate", GOOD)
        assert refused.status == 429
        assert refused.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
        assert int(refused.headers["retry-after"]) >= 1
        (event,) = server.post("/generate_stream", GOOD).events()
        assert event["error_type"] == "overloaded"
    finally:
        for client in clients:
            client.close()
    server.until(lambda: is_quiet(server))
    assert server.post("/generate", GOOD).status == 200


def test_others_do_not_notice(server: Server) -> None:
    """Good requests beside a storm of bad ones get the answers that they get alone."""
    alone = server.post("/generate", GOOD).json()
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            server.post("/generate", b"{")
            server.post("/generate", {"inputs": "x", "parameters": {"top_k": -1}})
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            body = json.dumps({**LONG, "stream": True})
            connection.request("POST", COMPLETIONS, body, {"content-type": "application/json"})
            connection.close()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        answers = together(8, lambda _: server.post("/generate", GOOD))
    finally:
        stop.set()
        thread.join(30)
    assert [answer.json() for answer in answers] == [alone] * 8
    server.until(lambda: is_quiet(server))
