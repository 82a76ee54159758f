"""Starting and stopping: clear sentences, exit statuses, nothing left behind."""

import json
import os
import shutil
import signal
import socket
import struct
from pathlib import Path

import pytest

from tests.end_to_end.conftest import BUILTIN
from tests.end_to_end.harness import launched, running, wait_until_healthy
from tests.processes import alive, children_of, command_line

REFUSAL_LIMIT_S = 60


def refused(*arguments: str) -> str:
    """The server must end by itself with a failure; its last line."""
    with launched(*arguments) as server:
        status = server.end(REFUSAL_LIMIT_S)
    assert status != 0, server.tail()
    assert not any("Traceback" in line for line in server.log), server.tail()
    return server.log[-1]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the built-in model to be broken."""
    return Path(shutil.copytree(BUILTIN, tmp_path / "model"))


def rewrite_header(path: Path, change) -> None:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    body = data[8 + size :]
    body = change(header, body)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_missing_directory() -> None:
    last = refused("--model-id", "/does/not/exist")
    assert "/does/not/exist" in last


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "safetensors" in refused("--model-id", str(model))


def test_pickled_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    last = refused("--model-id", str(model))
    assert "pytorch_model.bin" in last or "pickle" in last


def test_truncated_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors" in refused("--model-id", str(model))


def test_extra_tensor(model: Path) -> None:
    def add(header: dict, body: bytes) -> bytes:
        header["model.surprise.weight"] = {
            "dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4],
        }  # fmt: skip
        return body + b"\0\0\0\0"

    rewrite_header(model / "model.safetensors", add)
    assert "model.surprise.weight" in refused("--model-id", str(model))


def test_missing_tensor(model: Path) -> None:
    def rename(header: dict, body: bytes) -> bytes:
        header["model.norm.other"] = header.pop("model.norm.weight")
        return body

    rewrite_header(model / "model.safetensors", rename)
    assert "model.norm" in refused("--model-id", str(model))


def test_broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")
    assert "config.json" in refused("--model-id", str(model))


def test_unknown_architecture(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["architectures"] = ["NobodyKnowsForCausalLM"]
    (model / "config.json").write_text(json.dumps(config))
    assert "NobodyKnowsForCausalLM" in refused("--model-id", str(model))


def test_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in refused("--port", str(port))


def test_unsupported_flag_is_refused_by_name() -> None:
    assert "--ngrok" in refused("--ngrok")


def test_dry_run_starts_nothing_and_hides_secrets() -> None:
    arguments = ("--dry-run", "--max-input-tokens", "512")
    with launched(*arguments, env={"API_KEY": "hush-hush"}) as server:
        assert server.end(REFUSAL_LIMIT_S) == 0
    text = "\n".join(server.log)
    assert "max_input_tokens" in text.replace("-", "_")
    assert "512" in text
    assert "hush-hush" not in text


def test_serves_when_its_output_cannot_be_written() -> None:
    """The disk for logs is full: nobody who asks for text notices."""
    with open("/dev/full", "wb") as full, launched(stdout=full) as server:
        wait_until_healthy(server)
        for _ in range(3):
            assert server.generate("Hello", max_new_tokens=3)


def test_secrets_stay_out_of_sight() -> None:
    env = {"API_KEY": "hush-hush,hush-too", "HF_TOKEN": "hf_hush"}
    with running("--open-routes", "/metrics", env=env) as server:
        family = [server.process.pid, *children_of(server.process.pid)]
        for pid in family:
            assert "hush" not in command_line(pid)
        for pid in family[1:]:
            assert b"hf_hush" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert server.post("/generate", {"inputs": "a"}).status == 401
        assert server.get("/info").status == 401
        assert server.get("/info", headers={"x-api-key": "hush-too"}).status == 200
        assert server.get("/metrics").status == 200
        key = {"authorization": "Bearer hush-hush"}
        good = server.post(
            "/generate", {"inputs": "a", "parameters": {"max_new_tokens": 2}}, headers=key
        )
        assert good.status == 200
        assert b"hush" not in server.get("/info", headers=key).body
        assert server.get("/health").status == 200
    assert "hush" not in "\n".join(server.log)


def test_the_second_ctrl_c_does_not_wait() -> None:
    body = json.dumps({"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True})
    with (
        running() as server,
        socket.create_connection(("127.0.0.1", server.port), 10) as client,
    ):
        client.sendall(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        server.until(lambda: server.metrics()["tgi_batch_current_size"] == 1)
        worker = server.pids("-m worker")[0]
        os.kill(worker, signal.SIGSTOP)  # the stream does not end by itself
        server.process.send_signal(signal.SIGINT)
        server.until(lambda: any("Ctrl-C again" in line for line in server.log))
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        server.until(lambda: not alive(worker))
