"""Each check by itself: what is fine, what is worth knowing, what is wrong."""

import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from common.examination import Examination, ModelFacts
from launcher.arguments import parse_arguments
from launcher.doctor import machine, model, places
from launcher.doctor.finding import Finding, as_json, ok, problem, shown, warning
from launcher.limits import derive
from launcher.machine import Machine
from launcher.model import Model, builtin_directory
from launcher.resolve import Resolution, resolve
from tests.end_to_end.harness import free_port
from tests.launcher.models import weights

CPU = Examination(torch="2.13.0+cpu", cpu_capability="AVX2", native_types=["float32"])
FACTS = ModelFacts(
    architecture="LlamaForCausalLM", dtype="float32", device="cpu", native=True,
    weights_bytes=1000, kv_bytes_per_token=10,
)  # fmt: skip


def settings(flags: str = "") -> Resolution:
    resolution = resolve(parse_arguments(flags.split()).given, {})
    derive(resolution, None, Machine(4))
    return resolution


def only(findings: Iterable[Finding]) -> tuple[str, str]:
    (finding,) = findings
    return finding.level, finding.text


def test_python() -> None:
    assert next(machine.software((3, 12))).level == "ok"
    assert next(machine.software((3, 14))).level == "problem"


def test_torch() -> None:
    assert [finding.level for finding in machine.torch(CPU)] == ["ok", "ok"]
    slow = Examination(torch="2", cpu_capability="DEFAULT")
    assert [finding.level for finding in machine.torch(slow)] == ["ok", "warning"]
    level, text = only(machine.torch(Examination(problem="torch cannot be imported: no")))
    assert level == "problem"
    assert "tools/install_torch.py" in text


def test_gpus() -> None:
    shows = Machine(4, ("NVIDIA H200",))
    assert only(machine.gpus(Machine(4), CPU, {}))[0] == "ok"
    assert "built for CPUs" in only(machine.gpus(shows, CPU, {}))[1]
    cuda = Examination(torch="2", cuda="13.0")
    assert "newer driver" in only(machine.gpus(shows, cuda, {}))[1]
    level, text = only(machine.gpus(Machine(4), cuda, {}))
    assert (level, "--gpus all" in text) == ("warning", True)
    usable = Examination(torch="2", cuda="13.0", gpus=["NVIDIA H200"])
    assert only(machine.gpus(shows, usable, {}))[0] == "ok"


def test_compiler(tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path)}
    assert only(machine.compiler(Machine(4), nowhere))[0] == "ok"
    assert only(machine.compiler(Machine(4, ("GPU",)), nowhere))[0] == "warning"


def test_limits_of_the_system(tmp_path: Path) -> None:
    assert only(machine.files(128, 1024)) == (
        "warning",
        "A process may open 1024 files at most, and every client needs one: raise ulimit -n "
        "(LimitNOFILE, --ulimit nofile) to 4096.",
    )
    assert only(machine.files(128, 65536))[0] == "ok"
    assert only(machine.files(128, -1))[0] == "ok"
    assert only(machine.shared_memory(1, tmp_path / "none"))[0] == "ok"
    assert only(machine.shared_memory(2, tmp_path / "none"))[0] == "warning"


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = f"--hostname 127.0.0.1 --port {port} --prometheus-port {free_port()}"
        found = list(places.ports(settings(flags)))
    assert [finding.level for finding in found] == ["problem", "ok"]
    assert str(port) in found[0].text
    assert only(places.ports(settings(f"--port {free_port()} --prometheus-port 0")))[0] == "ok"


def test_the_runtime_directory(tmp_path: Path) -> None:
    def look(place: Path) -> tuple[str, str]:
        return only(places.runtime_directory(settings(f"--runtime-dir {place}")))

    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    assert look(private)[0] == "ok"
    assert look(tmp_path / "new")[0] == "ok"
    private.chmod(0o755)
    assert look(private)[0] == "problem"
    assert "too long" in look(tmp_path / ("x" * 100))[1]
    assert look(Path("/proc/self/new"))[0] == "problem" or os.getuid() == 0


def test_the_cache(tmp_path: Path) -> None:
    def look(place: Path, here: bool) -> list[str]:
        chosen = settings(f"--huggingface-hub-cache {place}")
        return [finding.level for finding in places.hub_cache(chosen, {}, here)]

    file = tmp_path / "file"
    file.touch()
    assert look(tmp_path, here=True) == ["ok"]
    assert look(tmp_path / "volume", here=True) == ["warning", "ok"]
    assert look(file / "volume", here=True) == ["warning"]
    assert look(file / "volume", here=False) == ["problem"]


def test_a_token_is_never_shown() -> None:
    level, text = only(places.token({"HF_TOKEN": "hush"}))
    assert level == "ok"
    assert "is set" in text
    assert "hush" not in text


def test_a_collector_that_cannot_be_reached() -> None:
    resolution = settings()
    assert list(places.collector(resolution)) == []
    resolution.derive("otlp_endpoint", f"http://127.0.0.1:{free_port()}", "a test")
    level, text = only(places.collector(resolution))
    assert level == "warning"
    assert "the server runs" in text


def test_models() -> None:
    here = Model("m", Path("/m"))
    found = Examination(torch="2", model=FACTS)
    assert only(model.usable(None, settings(), CPU))[0] == "warning"
    assert only(model.usable(here, settings(), found))[0] == "ok"
    wrong = Examination(torch="2", problem="the checkpoint lacks a tensor")
    assert "lacks a tensor" in only(model.usable(here, settings(), wrong))[1]


def test_adapters(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "adapter_config.json").write_text("{}")
    (whole / "adapter_model.safetensors").write_bytes(weights())

    def look(text: str) -> tuple[str, str]:
        return only(model.adapters(settings(f"--lora-adapters {text}")))

    assert look(f"poet={whole}") == ("ok", f"poet is in {whole}.")
    assert look("org/poet")[0] == "ok"
    level, text = look(f"poet={tmp_path / 'none'}")
    assert (level, "there is no directory" in text) == ("problem", True)
    (whole / "adapter_model.safetensors").write_bytes(weights()[:-1])
    level, text = look(f"poet={whole}")
    assert (level, "cut off" in text) == ("problem", True)
    assert list(model.adapters(settings())) == []


@pytest.mark.parametrize(
    ("flags", "available", "level"),
    [
        ("", 100_000, "ok"),
        ("", 20_000, "problem"),
        ("", 999, "problem"),
        ("--num-replicas 99", 90_000, "problem"),
        ("--max-batch-total-tokens 3000", 31_500, "ok"),
        ("--max-batch-total-tokens 3000", 30_500, "problem"),
    ],
)
def test_memory(flags: str, available: int, level: str) -> None:
    found = Examination(torch="2", model=FACTS, available_bytes=available)
    assert only(model.memory(settings(flags), found))[0] == level


def test_text(tmp_path: Path) -> None:
    def found() -> list[tuple[str, str]]:
        findings = model.text(Model("m", tmp_path), settings(), os.environ)
        return [(finding.level, finding.text) for finding in findings]

    assert found() == []  # a tokenizer that a start converts
    shutil.copy(builtin_directory() / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    ((level, text),) = found()
    assert (level, "no chat template" in text) == ("warning", True)
    (tmp_path / "tokenizer.json").write_text("{}")
    ((level, text),) = found()
    assert (level, "is not a tokenizer that can be loaded" in text) == ("problem", True)


def test_memory_of_settings_that_contradict_each_other() -> None:
    resolution = resolve(parse_arguments(["--max-total-tokens", "2048"]).given, {})
    found = Examination(torch="2", model=FACTS, available_bytes=100_000)
    assert only(model.memory(resolution, found))[0] == "ok"


def test_memory_of_a_model_that_keeps_nothing_of_each_token() -> None:
    recurrent = msgspec.structs.replace(FACTS, kv_bytes_per_token=0)
    found = Examination(torch="2", model=recurrent, available_bytes=100_000)
    level, text = only(model.memory(settings(), found))
    assert (level, "does not grow" in text) == ("ok", True)


def test_how_findings_look() -> None:
    findings = [ok("one", "Fine"), warning("two", "is it?"), problem("three", "No " * 60)]
    text = shown(findings)
    assert text.startswith("ok       one          Fine.\nwarning  two          is it?\n")
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text.endswith("1 problem, 1 warning")
    assert shown(findings[:1]).endswith("0 problems, 0 warnings")
    assert '"ok":false' in as_json(findings)
    assert '"ok":true' in as_json(findings[:2])
