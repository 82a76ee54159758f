"""``python -m worker``: a real process with a tiny model, its start, its end, its failures."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest
import zmq

from common.errors import StartupError
from common.messages import Dispatch, NewSequence, Ready, Reset, SequenceSpec, StepReport
from common.sampling import SamplingParameters
from common.settings import Settings
from common.sockets import FROM_WORKER, dispatch_endpoint, encode, open_socket
from tests.processes import started
from tests.worker.tiny import write_tiny_llama
from worker.__main__ import _prepare, main

ROOT = Path(__file__).parents[2]
WAIT_S = 60


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write_tiny_llama(directory)
    return directory


@pytest.fixture
def runtime_dir():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def working(
    runtime_dir: Path, model_dir: Path, **changes
) -> AbstractContextManager[subprocess.Popen]:
    settings = Settings(
        **(
            {
                "model_id": "tiny",
                "model_dir": str(model_dir),
                "runtime_dir": str(runtime_dir),
                "max_input_tokens": 100,
                "max_total_tokens": 200,
                "max_batch_prefill_tokens": 256,
                "max_batch_total_tokens": 1000,
                "dtype": "float32",
                "device": "cpu",
            }
            | changes
        )
    )
    path = runtime_dir / "settings.json"
    path.write_bytes(msgspec.json.encode(settings))
    environment = os.environ | {"MILLRACE_SETTINGS": str(path), "OMP_NUM_THREADS": "1"}
    return started(
        [sys.executable, "-m", "worker", "--number", "3"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_runs_and_stops_when_told(runtime_dir, model_dir, kept):
    context = zmq.Context()
    scheduler = open_socket(context, zmq.ROUTER)
    scheduler.bind(dispatch_endpoint(str(runtime_dir)))
    options = {"json_output": True, "kernel_cache": str(kept)}
    with context, scheduler, working(runtime_dir, model_dir, **options) as worker:
        assert scheduler.poll(WAIT_S * 1000)
        identity, frame = scheduler.recv_multipart()
        ready = FROM_WORKER.decode(frame)
        assert isinstance(ready, Ready)
        assert (ready.replica, ready.blocks, ready.pid) == (3, 64, worker.pid)
        spec = SequenceSpec(1 << 32, [1, 2, 3], 4, SamplingParameters())
        add = [NewSequence(spec, 0, [], [1])]
        for message in (Reset(9), Dispatch(9, 1, 64, add=add)):
            scheduler.send_multipart([identity, encode(message)])
        ids: list[int] = []
        while len(ids) < 4:
            assert scheduler.poll(WAIT_S * 1000)
            report = FROM_WORKER.decode(scheduler.recv_multipart()[1])
            if isinstance(report, StepReport):
                assert report.undelivered == [1]
                ids += report.items[0].tokens.ids
        worker.send_signal(signal.SIGTERM)
        out, _ = worker.communicate(timeout=WAIT_S)
    assert worker.returncode == 0
    (line,) = [json.loads(line) for line in out.splitlines() if "ready on" in line]
    assert line["process"] == "worker-3"
    assert "ready on cpu in float32: 1008 KV tokens" in line["message"]
    assert not (runtime_dir / "failure").exists()


def test_a_failed_start_says_why(runtime_dir, kept):
    with working(runtime_dir, Path("/nowhere/at/all"), kernel_cache=str(kept)) as worker:
        _, errors = worker.communicate(timeout=WAIT_S)
    assert worker.returncode == 78
    assert "/nowhere/at/all" in errors
    assert len(errors.strip().splitlines()) == 1
    assert errors.endswith((runtime_dir / "failure").read_text())


def run_main(runtime_dir: Path, monkeypatch, error: Exception) -> int:
    """In this process, with a start that fails."""

    def fail(settings, team):
        raise error

    path = runtime_dir / "settings.json"
    settings = Settings(model_id="m", model_dir="/m", runtime_dir=str(runtime_dir))
    path.write_bytes(msgspec.json.encode(settings))
    monkeypatch.setenv("MILLRACE_SETTINGS", str(path))
    monkeypatch.setattr("worker.__main__._prepare", lambda settings, number: None)
    monkeypatch.setattr("worker.__main__._start", fail)
    monkeypatch.setattr("common.logs.set_up", lambda *_, **__: None)
    return main(["--number", "0"])


def test_the_first_failure_is_kept(runtime_dir, monkeypatch, capsys):
    assert run_main(runtime_dir, monkeypatch, StartupError("one\nsentence")) == 78
    assert run_main(runtime_dir, monkeypatch, StartupError("another")) == 78
    assert (runtime_dir / "failure").read_text() == "one sentence\n"
    said = capsys.readouterr().err.splitlines()
    assert [line.split("worker ")[-1].strip() for line in said] == ["one sentence", "another"]


def test_what_nobody_foresaw_is_one_sentence_too(runtime_dir, monkeypatch, capsys, caplog):
    assert run_main(runtime_dir, monkeypatch, KeyError("lm_head")) == 78
    sentence = "the worker could not start: KeyError: 'lm_head'\n"
    assert capsys.readouterr().err.endswith(f" {sentence}")
    assert (runtime_dir / "failure").read_text() == sentence
    assert "Traceback" in caplog.text


def test_without_settings(monkeypatch, capsys):
    monkeypatch.delenv("MILLRACE_SETTINGS", raising=False)
    assert main([]) == 78
    assert "MILLRACE_SETTINGS is not set" in capsys.readouterr().err


def test_a_runtime_directory_that_others_could_enter(runtime_dir):
    runtime_dir.chmod(0o755)
    settings = Settings(model_id="m", model_dir="/m", runtime_dir=str(runtime_dir))
    with pytest.raises(StartupError, match="runtime directory cannot be used"):
        _prepare(settings, 0)
