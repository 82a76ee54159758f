"""Which build of torch is installed, where pip and uv find this or that."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[2] / "tools" / "install_torch.py"
USUAL = ("pip", "torch==2.13.0")
CPU = [("pip", "torch==2.13.0+cpu"), ("pip", "uv"), ("uv", "torch==2.13.0")]
"""Where a CPU build is looked for."""


class Machine:
    """Where only what is in ``found`` can be installed; ``asked`` is what was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location("install_torch", PATH)
        assert spec is not None
        assert spec.loader is not None
        self.program: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.program)
        self.found: set[tuple[str, ...]] = {USUAL, *CPU}
        self.asked: list[tuple[str, ...]] = []
        monkeypatch.delenv("TORCH_INSTALL_ARGS", raising=False)
        monkeypatch.setattr(self.program, "pip", lambda *a, quiet=False: self._ask("pip", *a))
        monkeypatch.setattr(self.program, "uv", lambda wanted: self._ask("uv", wanted))
        self.have(monkeypatch)

    def have(self, monkeypatch, *, gpu: bool = False, installed: str | None = None) -> None:
        monkeypatch.setattr(self.program, "has_gpu", lambda: gpu)
        monkeypatch.setattr(self.program, "installed_version", lambda: installed)

    def _ask(self, *wanted: str) -> int:
        self.asked.append(wanted)
        return int(wanted not in self.found)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_cpu_build_where_there_is_no_gpu(machine: Machine) -> None:
    assert machine.program.main([]) == 0
    assert machine.asked == CPU[:1]
    machine.asked.clear()
    machine.found.remove(CPU[0])
    assert machine.program.main([]) == 0
    assert machine.asked == CPU


@pytest.mark.parametrize("missing", [CPU[1], CPU[2]])
def test_without_one_the_usual_build_and_a_sentence(machine: Machine, missing, capsys) -> None:
    machine.found -= {CPU[0], missing}
    assert machine.program.main([]) == 0
    assert machine.asked[-1] == USUAL
    assert "no CPU build of torch 2.13.0 was found" in capsys.readouterr().err
    assert machine.program.main(["--no-cuda"]) == 1
    assert machine.asked[-1] == missing
    assert "nothing is installed" in capsys.readouterr().err
    machine.found.clear()
    assert machine.program.main([]) == 1


def test_the_usual_build_where_there_is_a_gpu(machine: Machine, monkeypatch) -> None:
    machine.have(monkeypatch, gpu=True)
    assert machine.program.main([]) == 0
    assert machine.asked == [USUAL]


def test_what_is_there_stays_unless_the_user_says_otherwise(machine: Machine, monkeypatch) -> None:
    machine.have(monkeypatch, installed="2.12.1+cu130")
    assert machine.program.main([]) == 0
    assert machine.asked == []
    monkeypatch.setenv("TORCH_INSTALL_ARGS", "--index-url http://example.com")
    machine.program.main([])
    assert machine.asked == [(*USUAL, "--index-url", "http://example.com")]
    monkeypatch.delenv("TORCH_INSTALL_ARGS")
    machine.have(monkeypatch, installed="2.9.0")
    assert machine.program.main([]) == 0
    assert machine.asked[-1] == CPU[0]
