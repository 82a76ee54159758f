"""The commands as a user meets them: exit statuses, sentences, what is printed."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.harness import free_port
from tests.launcher.commanding import last, millrace
from tests.launcher.hub_standin import HubState, Repository, serving
from tests.launcher.models import model_files, write
from tests.launcher.standins import ROOT


@pytest.mark.parametrize(
    ("arguments", "environ", "status", "words"),
    [
        (["--prot", "1"], {}, 2, ["did you mean --port?"]),
        (["--quantize", "awq"], {}, 1, ["--quantize"]),
        (["--max-input-tokens", "9", "--max-total-tokens", "9"], {}, 1, ["--max-total-tokens"]),
        (["--model-id", "/does/not/exist"], {}, 1, ["/does/not/exist"]),
        (["--model-id", "a b"], {}, 1, ["'a b'", "org/name"]),
        (["--model-id", "org/name"], {"HF_HUB_OFFLINE": "1"}, 1, ["HF_HUB_OFFLINE"]),
        (["--model-id", "pyproject.toml"], {}, 1, ["is a file"]),
        (["--model-id", "https://hub/org/name"], {}, 1, ["is an address", "org/name"]),
        ([], {"MAX_BEST_OF": "x"}, 2, ["MAX_BEST_OF"]),
        (["--device", "cuda"], {"CUDA_VISIBLE_DEVICES": ""}, 1, ["--device is cuda", "no NVIDIA"]),
        (["--runtime-dir", "/dev/null/x"], {}, 1, ["the runtime directory cannot be used"]),
    ],
)
def test_refusals(tmp_path: Path, arguments, environ, status, words) -> None:
    ports = ["--port", str(free_port()), "--prometheus-port", str(free_port())]
    answer = millrace(tmp_path, *ports, *arguments, **environ)
    assert answer.returncode == status, answer.stderr
    sentence = last(answer.stderr)
    assert sentence.startswith("millrace: ")
    assert all(word in sentence for word in words), sentence
    assert "Traceback" not in answer.stderr


def test_a_missing_volume(tmp_path: Path) -> None:
    """The place for downloads is not there and cannot be made."""
    file = tmp_path / "file"
    file.touch()
    state = HubState({"org/model": Repository(model_files())})
    with serving(state) as url:
        places = ["--huggingface-hub-cache", str(file / "data")]
        answer = millrace(tmp_path, "download", "org/model", *places, HF_ENDPOINT=url)
    assert answer.returncode == 1
    assert f"cannot write to {file}/data" in last(answer.stderr)
    assert "--huggingface-hub-cache" in last(answer.stderr)
    assert "Traceback" not in answer.stderr


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = millrace(tmp_path, "--port", str(port))
    assert answer.returncode == 1
    assert f"port {port} on 0.0.0.0 cannot be used" in last(answer.stderr)
    assert "--port" in last(answer.stderr)


def test_dry_run_starts_and_downloads_nothing(tmp_path: Path) -> None:
    state = HubState({"org/model": Repository(model_files())})
    with serving(state) as url:
        answer = millrace(
            tmp_path, "--dry-run", "--model-id", "org/model", HF_ENDPOINT=url, API_KEY="hush"
        )
    assert answer.returncode == 0, answer.stderr
    assert "org/model is not on this machine" in answer.stdout
    assert "hush" not in answer.stdout + answer.stderr
    assert state.asked == []
    assert not (tmp_path / ".cache").exists()


def test_dry_run_reads_a_local_model(tmp_path: Path) -> None:
    model = write(tmp_path / "model", model_files(context=300))
    answer = millrace(tmp_path, "--dry-run", "--model-id", str(model), "--max-total-tokens", "900")
    assert answer.returncode == 0
    assert "--max-total-tokens is lowered from 900 to 300" in answer.stdout
    assert "derived: clipped: max_position_embeddings of the model's config.json" in answer.stdout


def test_download_then_dry_run(tmp_path: Path) -> None:
    state = HubState({"org/model": Repository(model_files(context=300))})
    with serving(state) as url:
        answer = millrace(tmp_path, "download", "org/model", HF_ENDPOINT=url)
        assert answer.returncode == 0, answer.stderr
        assert (Path(last(answer.stdout)) / "model.safetensors").exists()
        again = millrace(tmp_path, "--dry-run", MODEL_ID="org/model", HF_ENDPOINT=url)
    assert "environment MODEL_ID" in again.stdout
    assert "max_total_tokens               300" in again.stdout


def test_help_version_and_env(tmp_path: Path) -> None:
    assert "--max-batch-prefill-tokens" in millrace(tmp_path, "--help").stdout
    assert millrace(tmp_path, "--version").stdout.startswith("millrace 0")
    answer = millrace(tmp_path, "env", API_KEY="hush", MODEL_ID="m")
    assert answer.returncode == 0
    assert "MODEL_ID=m" in answer.stdout
    assert "hush" not in answer.stdout


def test_the_environment_can_be_printed_first(tmp_path: Path) -> None:
    answer = millrace(tmp_path, "-e", "--dry-run")
    assert answer.stdout.index("torch ") < answer.stdout.index("max_input_tokens")


def test_from_any_directory(tmp_path: Path) -> None:
    """Folders that are called like our packages must not be taken for them."""
    for name in ("common", "scheduler", "worker", "frontend"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    command = [sys.executable, "-P", "-m", "launcher", "--dry-run"]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr


def test_sigterm_before_the_start(tmp_path: Path) -> None:
    """Also a container's first process, which is deaf to signals that it does not handle."""
    answer = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import os, signal, launcher.cli as cli\n"
            "cli.run = lambda *rest: os.kill(os.getpid(), signal.SIGTERM)\n"
            "cli.main([])",
        ],
        check=False,
        cwd=ROOT,
    )
    assert answer.returncode == 128 + signal.SIGTERM


def test_ctrl_c_while_it_is_loaded_leaves_no_traceback() -> None:
    answer = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import importlib, os, signal, sys\n"
            "from launcher import entry\n"
            "importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)\n"
            "entry.main()",
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stderr) == (128 + signal.SIGINT, "")
