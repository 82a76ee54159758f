"""The real front end, gunicorn and all, against a scheduler and a worker in the test.

Starts and ends its own processes, by their pids; the pipeline's sockets lie in a directory of the
test.
"""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from common.messages import Cancel, Delivered, FrontendGone, Hello, Missing, Submit
from common.settings import SETTINGS_VARIABLE
from frontend.text.tokenizer import Tokenizer
from tests.frontend.fakes import events, settings
from tests.frontend.pipeline import NEVER, Backend

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0


def until(condition: Callable[[], Any], limit_s: float = LIMIT_S) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.01)


class Front:
    """A started front end and its backend."""

    def __init__(self, model_dir: Path, runtime_dir: Path, **changes: Any) -> None:
        runtime_dir.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.runtime_dir = runtime_dir
        token = Tokenizer.load(str(model_dir)).encode("x", add_special_tokens=False)[0]
        self.backend = Backend(runtime_dir, token)
        values = settings(
            model_dir=str(model_dir),
            hostname="127.0.0.1",
            port=self.port,
            runtime_dir=str(runtime_dir),
            graceful_termination_timeout=10,
            **changes,
        )
        path = runtime_dir / "settings.json"
        path.write_bytes(msgspec.json.encode(values))
        self.log = (runtime_dir / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "frontend"],
            cwd=ROOT,
            env={**os.environ, SETTINGS_VARIABLE: str(path)},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.backend.start()

    def output(self) -> str:
        return (self.runtime_dir / "log").read_text()

    def wait(self) -> None:
        """Until it answers."""

        def healthy() -> bool:
            assert self.process.poll() is None, self.output()
            try:
                return self.request("GET", "/health")[0] == 200
            except OSError:
                return False

        until(healthy)

    def children(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return found

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"content-type": "application/json", **(headers or {})}
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def connect(self, path: str, body: Any) -> socket.socket:
        """A raw connection with a request on it."""
        data = json.dumps(body).encode()
        client = socket.create_connection(("127.0.0.1", self.port), LIMIT_S)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        client.sendall(head.encode() + data)
        return client

    def stop(self) -> int:
        """SIGTERM; nothing may be left."""
        family = self.children()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(LIMIT_S)
            until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 5)
        finally:
            self.kill(family)
            self.backend.stop()
            self.log.close()
        return status

    def kill(self, family: list[int]) -> None:
        for pid in [*family, self.process.pid]:
            if pid != self.process.pid or self.process.poll() is None:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.process.wait(5)


def body(tokens: int, **parameters: Any) -> dict[str, Any]:
    return {"inputs": "hello", "parameters": {"max_new_tokens": tokens, **parameters}}


NEVER_BODY = body(1000, do_sample=True, seed=NEVER)


@pytest.fixture(scope="module")
def front(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    made = Front(model_dir, tmp_path_factory.mktemp("front") / "run", num_frontends=2)
    try:
        until(lambda: made.backend.of(Hello))
        time.sleep(0.3)
        # The model is not ready: connections are refused, as with TGI.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", made.port), 1)
        made.backend.ready = True
        made.wait()
        yield made
    except BaseException:
        sys.stderr.write(made.output())
        made.kill(made.children())
        raise
    assert made.stop() == 0, made.output()
    assert "Traceback" not in made.output()


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
    with front.connect("/generate_stream", body(200)) as client:
        first = client.recv(65536)
        assert b"transfer-encoding: chunked" in first.lower()
        start = time.monotonic()
        data = first
        while b'"index":3,' not in data:
            data += client.recv(65536)
        assert b'"index":200,' not in data
        assert time.monotonic() - start < 1


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
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (
            b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz secret\r\n",
            400,
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
    time.sleep(0.05)
    assert front.backend.live() == 1
    client.close()
    until(lambda: front.backend.live() == 0, 5)
    cancel = front.backend.of(Cancel)[-1]
    assert (cancel.id, cancel.reason) == (front.backend.of(Submit)[-1].spec.id, "client_gone")
    assert not front.backend.of(Delivered)[-1].success


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
        time.sleep(0.1)
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
    start = time.monotonic()
    assert front.request("POST", "/generate", body(5))[0] == 200
    assert time.monotonic() - start < 2
    for client in [*half, *deaf]:
        client.close()
    until(lambda: front.backend.live() == 0)


def test_a_killed_process_is_reported_and_replaced(front: Front) -> None:
    victim, _ = front.children()
    os.kill(victim, signal.SIGKILL)
    until(lambda: FrontendGone(pid=victim) in front.backend.of(FrontendGone))
    until(lambda: len(front.children()) == 2 and victim not in front.children())
    until(lambda: front.request("POST", "/generate", body(3))[0] == 200)


def test_stopping_lets_streams_finish(model_dir: Path, tmp_path: Path) -> None:
    front = Front(model_dir, tmp_path / "run")
    front.backend.ready = True
    front.wait()
    idle = socket.create_connection(("127.0.0.1", front.port), LIMIT_S)
    kept = http.client.HTTPConnection("127.0.0.1", front.port, timeout=LIMIT_S)
    kept.request("GET", "/info")
    kept.getresponse().read()
    answers: list[bytes] = []
    worker = threading.Thread(
        target=lambda: answers.append(front.request("POST", "/generate_stream", body(500))[2])
    )
    worker.start()
    until(lambda: front.backend.live() == 1)
    time.sleep(0.2)
    start = time.monotonic()
    assert front.stop() == 0, front.output()
    assert time.monotonic() - start < 8, front.output()
    worker.join(5)
    assert events(answers[0])[-1]["generated_text"] == "x" * 500
    idle.close()
    kept.close()
    assert "Traceback" not in front.output()


def test_stopping_ends_streams_that_take_too_long(model_dir: Path, tmp_path: Path) -> None:
    front = Front(model_dir, tmp_path / "run")
    front.backend.ready = True
    front.wait()
    with front.connect("/generate_stream", NEVER_BODY) as client:
        until(lambda: front.backend.live() == 1)
        assert front.stop() == 0, front.output()
        data = b""
        while part := client.recv(65536):
            data += part
    assert b'data: {"error":"The server is shutting down","error_type":"unavailable"}' in data
    assert front.backend.live() == 0


def test_bad_starts_say_why(model_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values = settings(
            model_dir=str(model_dir),
            hostname="127.0.0.1",
            port=taken.getsockname()[1],
            runtime_dir=str(tmp_path),
        )
        (tmp_path / "settings.json").write_bytes(msgspec.json.encode(values))
        environment = {**os.environ, SETTINGS_VARIABLE: str(tmp_path / "settings.json")}
        command = [sys.executable, "-m", "frontend"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
    assert done.returncode == 78
    sentence = done.stderr.strip().splitlines()[-1]
    assert str(values.port) in sentence
    assert (tmp_path / "failure").read_text().strip() == sentence
    assert "Traceback" not in done.stderr
    environment.pop(SETTINGS_VARIABLE)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 78
