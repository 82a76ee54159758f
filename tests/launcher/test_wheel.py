"""The wheel holds everything that a start needs, and nothing of the tests."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.launcher.standins import ROOT

PACKAGES = ("common", "frontend", "scheduler", "worker", "launcher", "tracer")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, so that nothing is left in the tree."""
    place = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, place / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "supervisord.conf", ".gitignore"):
        shutil.copy(ROOT / name, place / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist")],
        cwd=place,
        check=True,
        capture_output=True,
    )
    (path,) = (place / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_contents(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    model = {path.name for path in (ROOT / "common" / "models" / "builtin").iterdir()}
    assert {f"common/models/builtin/{name}" for name in model} <= names
    assert {
        "launcher/supervisord.conf",
        "launcher/cli.py",
        "launcher/bench/client.py",
        "worker/__main__.py",
    } <= names
    pages = {"frontend/openapi/docs.html", "frontend/playground/playground.html"}
    assert pages <= names
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == set(PACKAGES)
    assert not tops & {"bench", "tests", "tools"}
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    text = wheel.read(entry_points).decode()
    assert "millrace = launcher.entry:main" in text
    assert "text-generation-launcher = launcher.entry:main" in text


def test_runs_from_any_directory(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    wheel.extractall(installed)
    check = (
        "import launcher, sys\n"
        "from launcher.supervise import configuration\n"
        "from launcher.cli import run\n"
        "assert configuration().is_file(), configuration()\n"
        f"assert launcher.__file__.startswith({str(installed)!r})\n"
        "sys.exit(run(['--dry-run'], {}))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", check],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert str(installed / "common" / "models" / "builtin") in answer.stdout
