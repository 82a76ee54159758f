"""``millrace doctor`` as its user meets it, the worker's own check included."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from common.examination import Examination
from launcher.arguments import parse_arguments
from launcher.doctor import model
from launcher.doctor.examination import examine
from launcher.model import builtin_directory
from tests.end_to_end.harness import free_port
from tests.launcher.commanding import last, millrace


def ports() -> list[str]:
    return ["--port", str(free_port()), "--prometheus-port", str(free_port())]


def test_a_healthy_machine(tmp_path: Path) -> None:
    answer = millrace(tmp_path, "doctor", *ports(), HF_TOKEN="hush")
    assert answer.returncode == 0, answer.stdout
    assert last(answer.stdout).startswith("0 problems")
    assert "millrace-builtin is complete: LlamaForCausalLM" in answer.stdout
    assert "The tokenizer and the chat template can be read." in answer.stdout
    assert "hush" not in answer.stdout + answer.stderr


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    """A tensor too few, a template cut off, a taken port, an unknown name: all in one run."""
    broken = Path(shutil.copytree(builtin_directory(), tmp_path / "model"))
    config = json.loads((broken / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (broken / "config.json").write_text(json.dumps(config))
    (broken / "chat_template.jinja").write_text("{% for message in")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        flags = ["--json", "--model-id", str(broken), "--prometheus-port", "0"]
        flags += ["--port", str(taken.getsockname()[1])]
        answer = millrace(tmp_path, "doctor", *flags, TGI_PROT="1")
    found = json.loads(answer.stdout)
    assert (answer.returncode, found["ok"]) == (1, False)
    problems = [item["text"] for item in found["findings"] if item["level"] == "problem"]
    warnings = [item["text"] for item in found["findings"] if item["level"] == "warning"]
    words = ["cannot be used", "chat_template.jinja has an error", "the checkpoint lacks"]
    assert [word in text for word, text in zip(words, problems, strict=True)] == [True] * 3
    assert sum("did you mean TGI_PORT?" in text for text in warnings) == 1


def test_a_model_without_any_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "ask_worker", lambda *rest: Examination(torch="2.13.0"))
    bare = Path(shutil.copytree(builtin_directory(), tmp_path / "model"))
    for path in bare.glob("tokenizer*"):
        path.unlink()
    flags = ["--model-id", str(bare), *ports()]
    found = list(examine(parse_arguments(flags).given, {"HOME": str(tmp_path)}))
    (wrong,) = [finding.text for finding in found if finding.level == "problem"]
    assert "has no tokenizer" in wrong


def test_settings_that_cannot_be_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is looked at all the same."""
    monkeypatch.setattr(model, "ask_worker", lambda *rest: Examination(torch="2.13.0"))
    found = list(examine(parse_arguments(["--ngrok"]).given, {}))
    (wrong,) = [finding.text for finding in found if finding.level == "problem"]
    assert wrong.startswith("--ngrok cannot be used")
    assert {"python", "torch", "cores"} <= {finding.subject for finding in found}
