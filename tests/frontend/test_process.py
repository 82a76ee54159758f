"""The real front end, gunicorn and all, against a scheduler and a worker in the test.

The pipeline's sockets lie in a directory of the test.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from common.messages import Alive, Cancel, Delivered, FrontendGone, Missing, Submit
from tests.frontend.fakes import events
from tests.frontend.front import LIMIT_S, NEVER_BODY, Front, body, starting, until

CLIENT_BUFFER = 65_536


@pytest.fixture(scope="module")
def front(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    directory = tmp_path_factory.mktemp("front") / "run"
    with starting(model_dir, directory, num_frontends=2, client_buffer=CLIENT_BUFFER) as made:
        until(lambda: made.backend.of(Alive))
        # The model is not ready: connections are refused, as with TGI.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", made.port), 1)
        made.backend.ready = True
        made.wait()
        yield made
        made.check_stop()


def test_whole_and_streamed(front: Front) -> None:
    status, headers, data = front.request("POST", "/generate", body(5))
    assert (status, json.loads(data)) == (200, {"generated_text": "xxxxx"})
    assert headers["x-generated-tokens"] == "5"
    status, headers, data = front.request("POST", "/generate_stream", body(20))
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    found = events(data)
    assert [e["index"] for e in found] == list(range(1, 21))
    assert found[-1]["generated_text"] == "x" * 20
    assert f"listening on http://127.0.0.1:{front.port}" in front.output()


def test_tokens_come_as_they_are_made(front: Front) -> None:
    with front.connect("/generate_stream", body(2000)) as client:
        data = client.recv(65536)
        assert b"transfer-encoding: chunked" in data.lower()
        while b'"index":3,' not in data:
            data += client.recv(65536)
        assert b'"index":2000,' not in data
    until(lambda: front.backend.live() == 0)


def test_headers_come_before_the_first_token(front: Front) -> None:
    with front.connect("/generate_stream", NEVER_BODY) as client:
        assert b"200 OK" in client.recv(65536)
    until(lambda: front.backend.live() == 0)


def test_health_metrics_and_head(front: Front) -> None:
    assert front.request("GET", "/metrics")[2] == b"tgi_queue_size 0\n"
    for path in ("/", "/health", "/info"):
        status, _, data = front.request("HEAD", path)
        assert (status, data) == (200, b"")


def test_errors_over_one_connection(front: Front) -> None:
    """A refused request does not spoil the connection for the next one."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
    headers = {"content-type": "application/json"}
    for data, status in (
        (b"{", 400),
        (b'{"inputs": 3}', 422),
        (json.dumps(body(2)).encode(), 200),
        (b'{"inputs": ""}', 422),
        (json.dumps(body(2)).encode(), 200),
    ):
        connection.request("POST", "/generate", data, headers)
        answer = connection.getresponse()
        assert answer.status == status
        json.loads(answer.read())
    connection.close()


def test_too_large(front: Front) -> None:
    status, _, data = front.request("POST", "/generate", b'{"inputs": "' + b"a" * 2_100_000)
    assert status == 413
    assert json.loads(data)["error_type"] == "validation"

    def chunks() -> Iterator[bytes]:
        for _ in range(60):
            yield b"a" * 50_000

    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
    connection.request("POST", "/generate", chunks(), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    json.loads(answer.read())
    connection.close()


def test_a_large_body_for_nobody(front: Front) -> None:
    for path, status in (("/nothing", 404), ("/info", 405)):
        assert front.request("POST", path, b"a" * 3_000_000)[0] == status


def test_a_small_body_for_nobody_is_taken_before_the_connection_ends(front: Front) -> None:
    """It would be reset otherwise, and who is still sending never reads the answer."""
    with socket.create_connection(("127.0.0.1", front.port), LIMIT_S) as client:
        head = b"POST /nothing HTTP/1.1\r\nConnection: close\r\nContent-Length: 2000\r\n\r\n"
        client.sendall(head)
        answer = b""
        while part := client.recv(65536):
            answer += part
        assert b" 404 " in answer
        client.sendall(b"a" * 1000)
        client.sendall(b"a" * 1000)  # raises where the one before was answered with a reset


def test_a_connection_outlives_a_small_body_for_nobody(front: Front) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
    connection.auto_open = 0
    connection.connect()
    for path, kind, status in (
        ("/nothing", "application/json", 404),
        ("/generate", "text/plain", 415),
        ("/info", "application/json", 405),
        ("/generate", "application/json", 200),
    ):
        connection.request("POST", path, json.dumps(body(3)), {"content-type": kind})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["connection"]) == (status, "keep-alive")
        answer.read()
    connection.close()


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        (b"Content-Length: 3000000", b"a"),
        (b"Transfer-Encoding: chunked", b"zz\r\n"),
        (b"Transfer-Encoding: chunked", b"2000000\r\n" + b"a" * 2_100_000),
    ],
)
def test_who_is_cut_off_for_a_body_is_told(front: Front, head: bytes, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", front.port), LIMIT_S) as client:
        start = b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client.sendall(start + head + b"\r\n\r\n" + sent)
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert b"\r\nConnection: close\r\n" in answer


def test_chunked_bodies_are_read(front: Front) -> None:
    data = json.dumps(body(3)).encode()
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
    parts = iter([data[:10], data[10:]])
    connection.request("POST", "/generate", parts, headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense secret\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"secret" * 80, 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz secret\r\n",
            400,
        ),
        (
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: br, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            501,
        ),
        (
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            415,
        ),
    ],
)
def test_what_is_not_http(front: Front, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", front.port), LIMIT_S) as client:
        client.sendall(sent)
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, data = answer.partition(b"\r\n\r\n")
    assert int(head.split(b" ")[1]) == status
    assert json.loads(data)["error_type"] == "validation"
    assert "secret" not in front.output()


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
@pytest.mark.parametrize("state", ["prefill", "decoding"])
@pytest.mark.parametrize("pipelined", [False, True])
def test_clients_that_leave_are_noticed(
    front: Front, path: str, state: str, pipelined: bool
) -> None:
    before = len(front.backend.of(Submit))
    client = front.connect(path, NEVER_BODY if state == "prefill" else body(2000))
    until(lambda: len(front.backend.of(Submit)) > before)
    if pipelined:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    front.backend.go_on()
    assert front.backend.live() == 1
    client.close()
    until(lambda: front.backend.live() == 0, 5)
    cancel = front.backend.of(Cancel)[-1]
    assert (cancel.id, cancel.reason) == (front.backend.of(Submit)[-1].spec.id, "client_gone")
    assert not front.backend.of(Delivered)[-1].success


def test_who_says_no_more_gets_no_end_that_looks_whole(front: Front) -> None:
    """It may still read, and is taken to have left: a stream without its end must not pass for one.

    One that is there to be answered whole is told so.
    """
    for path, status in (("/generate_stream", b"200"), ("/generate", b"499")):
        client = front.connect(path, NEVER_BODY)
        until(lambda: front.backend.live() == 1)
        answer = client.recv(65536) if status == b"200" else b""
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65536):
            answer += part
        client.close()
        assert answer.split(b" ")[1] == status
        assert not answer.endswith(b"0\r\n\r\n")
        until(lambda: front.backend.live() == 0)


def test_pipelined_requests_are_answered(front: Front) -> None:
    data = json.dumps(body(30)).encode()
    one = (
        b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(data), data)
    )
    with socket.create_connection(("127.0.0.1", front.port), LIMIT_S) as client:
        client.sendall(one * 3)
        answer = b""
        while answer.count(b'"generated_text"') < 3:
            part = client.recv(65536)
            assert part
            answer += part


def test_stop_string_cancels(front: Front) -> None:
    _, _, data = front.request("POST", "/generate", body(2000, stop=["xxx"]))
    assert json.loads(data)["generated_text"] == "xxx"
    until(lambda: front.backend.of(Cancel)[-1].reason == "stop_sequence")


def test_lost_publications_are_asked_for(front: Front) -> None:
    with front.connect("/generate_stream", body(100)) as client:
        data = client.recv(65536)
        front.backend.publish = False
        front.backend.go_on()
        front.backend.publish = True
        while b'"generated_text":"' not in data:
            data += client.recv(65536)
    numbers = [
        json.loads(line.removeprefix("data: "))["index"]
        for line in data.decode().splitlines()
        if line.startswith("data: ")
    ]
    assert numbers == list(range(1, 101))
    assert front.backend.of(Missing)


def test_a_new_scheduler_gets_everything_again(front: Front) -> None:
    with front.connect("/generate_stream", body(150)) as client:
        data = client.recv(65536)
        while b'"index":10,' not in data:
            data += client.recv(65536)
        front.backend.forget()
        while b'"generated_text":"' not in data:
            data += client.recv(65536)
    assert b"x" * 150 in data
    again = front.backend.of(Submit)[-1]
    assert again.attempt == 1
    assert len(again.generated_ids) >= 10


def test_two_hundred_streams(front: Front) -> None:
    async def one(session: aiohttp.ClientSession) -> list[int]:
        url = f"http://127.0.0.1:{front.port}/generate_stream"
        async with session.post(url, json=body(100)) as answer:
            assert answer.status == 200
            return [event["index"] for event in events(await answer.read())]

    async def all_of_them() -> list[list[int]]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(one(session) for _ in range(200)))

    found = asyncio.run(all_of_them())
    assert found == [list(range(1, 101))] * 200
    until(lambda: front.backend.live() == 0)


def test_slow_clients_hold_up_nobody(front: Front) -> None:
    half = []
    for _ in range(50):
        client = socket.create_connection(("127.0.0.1", front.port), LIMIT_S)
        client.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
        half.append(client)
    deaf = [front.connect("/generate_stream", body(2000)) for _ in range(5)]
    until(lambda: front.backend.live() == 5)
    assert front.request("POST", "/generate", body(5))[0] == 200
    for client in [*half, *deaf]:
        client.close()
    until(lambda: front.backend.live() == 0)


def test_a_client_that_never_reads_is_let_go(front: Front) -> None:
    """Long before its text is at its end; whoever reads gets all of theirs."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", front.port))
    data = json.dumps(body(2000)).encode()
    head = f"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
    before = len(front.backend.of(Cancel))
    client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
    until(lambda: len(front.backend.of(Cancel)) > before)
    assert front.backend.of(Cancel)[-1].reason == "client_gone"
    until(lambda: front.backend.live() == 0)
    assert "a client is too far behind" in front.output()
    client.close()
    status, _, answer = front.request("POST", "/generate_stream", body(500))
    assert (status, len(events(answer))) == (200, 500)


def test_a_killed_process_is_reported_and_replaced(front: Front) -> None:
    victim, _ = front.children()
    os.kill(victim, signal.SIGKILL)
    until(lambda: FrontendGone(pid=victim, is_replaced=True) in front.backend.of(FrontendGone))
    until(lambda: len(front.children()) == 2 and victim not in front.children())
    until(lambda: front.request("POST", "/generate", body(3))[0] == 200)


def test_the_hub_client(front: Front) -> None:
    """``huggingface_hub`` as its users call it; see the contract's notes on clients."""
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError, ValidationError

    client = InferenceClient(f"http://127.0.0.1:{front.port}", token="any")
    assert client.text_generation("hello", max_new_tokens=3) == "helloxxx"
    detailed = client.text_generation("hello", max_new_tokens=3, details=True)
    assert detailed.details.generated_tokens == 3
    pieces = client.text_generation("hello", max_new_tokens=4, stream=True)
    assert "".join(pieces) == "xxxx"
    with pytest.raises(ValidationError, match="Input validation error"):
        client.text_generation("", max_new_tokens=3)
    with pytest.raises(ValidationError):
        list(client.text_generation("hello", temperature=0.0, stream=True))
    messages = [{"role": "user", "content": "hello"}]
    answer = client.chat_completion(messages, max_tokens=3)
    assert answer.choices[0].message.content == "xxx"
    assert answer.usage.completion_tokens == 3
    chunks = list(client.chat_completion(messages, max_tokens=3, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "xxx"
    assert chunks[-1].choices[0].finish_reason == "length"
    with pytest.raises(HfHubHTTPError):
        client.chat_completion([], max_tokens=3)
