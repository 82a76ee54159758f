"""Bad input gets a clear error and costs nobody else anything."""

import http.client
import json
import resource
import socket
import threading

import pytest

from tests.end_to_end.harness import Server, together

GOOD = {"inputs": "What is the capital of France?", "parameters": {"max_new_tokens": 16}}
LONG = {"inputs": "Once", "parameters": {"max_new_tokens": 1500, "repetition_penalty": 1.3}}


def is_quiet(server: Server) -> bool:
    """Nothing runs or waits, and every KV block is free or cached."""
    series = server.metrics()
    return series["tgi_batch_current_size"] == 0 and series["tgi_queue_size"] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
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
        ({"inputs": "a", "parameters": {"watermark": True}}, 422),
        ({"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "a"}}}, 422),
        ({"inputs": "a", "parameters": {"adapter_id": "x"}}, 422),
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


@pytest.mark.parametrize("path", ["/generate_stream", "/generate"])
def test_vanishing_clients_free_their_place(server: Server, path: str) -> None:
    """Decoding (streamed and not) and still waiting ones: all are noticed."""
    clients = [open_stream(server, path, LONG) for _ in range(6)]
    server.until(lambda: server.metrics()["tgi_batch_current_size"] >= 1)
    for client in clients:
        client.close()
    server.until(lambda: is_quiet(server))


def test_slow_clients_hold_up_nobody(server: Server) -> None:
    """Half a request each, and readers that never read."""
    slow = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(50)]
    for client in slow:
        client.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
    deaf = [open_stream(server, "/generate_stream", LONG) for _ in range(4)]
    assert server.generate(GOOD["inputs"], max_new_tokens=16)
    for client in [*slow, *deaf]:
        client.close()
    server.until(lambda: is_quiet(server))


def test_thousands_of_connections(server: Server) -> None:
    """Idle connections, as many as the limit on open files allows, up to 10,000."""
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
    clients = [open_stream(server, "/generate_stream", LONG) for _ in range(64)]
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
            connection.request("POST", "/generate_stream", json.dumps(LONG), {
                "content-type": "application/json"})  # fmt: skip
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
