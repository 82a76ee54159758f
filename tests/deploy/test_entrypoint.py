"""The image's entry point and health check, with a stand-in for what they start."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.queries import DEPLOY

TELLER = """#!/bin/sh
printf '%s\\n' "port=$PORT" "cache=$HUGGINGFACE_HUB_CACHE" "umask=$(umask)" "arguments=$*"
"""


def entry_point(
    tmp_path: Path,
    *arguments: str,
    script: str | Path = DEPLOY / "entrypoint.sh",
    user: int | None = None,
    **environ: str,
) -> dict[str, str]:
    """Run it; what the server would have seen, and ``said`` for what it printed itself."""
    binary = tmp_path / "bin" / "millrace"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(TELLER)
    binary.chmod(0o755)
    path = f"{binary.parent}:{os.environ['PATH']}"
    environ = {"PORT": "80", "HUGGINGFACE_HUB_CACHE": str(tmp_path)} | environ | {"PATH": path}
    done = subprocess.run(
        [script, *arguments], env=environ, user=user, capture_output=True, text=True, check=True
    )  # fmt: skip
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return told | {"said": done.stderr}


def test_flags_go_on_as_they_are(tmp_path: Path) -> None:
    told = entry_point(tmp_path, "--model-id", "org/name", "--max-input-tokens", "2048")
    assert told["arguments"] == "--model-id org/name --max-input-tokens 2048"
    assert told["port"] == "80"
    assert told["said"] == ""
    assert told["umask"] == "0002"


@pytest.mark.parametrize(
    ("arguments", "environ", "port"),
    [
        ((), {"AIP_HTTP_PORT": "8085"}, "8085"),
        (("serve",), {}, "8080"),
        (("serve",), {"SAGEMAKER_BIND_TO_PORT": "9999"}, "9999"),
        (("serve", "--model-id", "x"), {}, "80"),
        ((), {"PORT": "8000", "AIP_HTTP_PORT": "8085"}, "8000"),
    ],
)
def test_the_platform_chooses_the_port(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str], port: str
) -> None:
    assert entry_point(tmp_path, *arguments, **environ)["port"] == port


@pytest.fixture
def foreign_cache() -> Iterator[Path]:
    """A directory that can be read but not written, in one that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        cache = Path(name) / "data"
        cache.mkdir()
        cache.chmod(0o555)
        yield cache


def as_somebody(cache: Path) -> dict[str, str]:
    """Like ``entry_point``, beside the cache, and never as root, who can write everywhere."""
    script = shutil.copy(DEPLOY / "entrypoint.sh", cache.parent)
    nobody = 65534 if os.getuid() == 0 else None
    return entry_point(cache.parent, script=script, user=nobody, HUGGINGFACE_HUB_CACHE=str(cache))


def test_an_empty_cache_that_cannot_be_written_is_replaced(foreign_cache: Path) -> None:
    told = as_somebody(foreign_cache)
    assert told["cache"] == "/tmp/models"
    assert f"cannot write to {foreign_cache}" in told["said"]


def test_a_foreign_cache_with_models_is_used(foreign_cache: Path) -> None:
    foreign_cache.chmod(0o755)
    (foreign_cache / "models--org--name").mkdir()
    foreign_cache.chmod(0o555)
    told = as_somebody(foreign_cache)
    assert (told["cache"], told["said"]) == (str(foreign_cache), "")


def test_a_cache_that_can_be_written_or_made_is_kept(tmp_path: Path) -> None:
    assert entry_point(tmp_path)["cache"] == str(tmp_path)
    new = str(tmp_path / "not" / "yet")
    assert entry_point(tmp_path, HUGGINGFACE_HUB_CACHE=new)["cache"] == new


def test_every_file_of_the_build_is_let_through() -> None:
    """``.dockerignore`` names all that the Dockerfile copies, and that exists."""
    root = DEPLOY.parent
    let_through = {
        line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = set()
    for line in (root / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and "--from=build" not in words:
            copied.update(word for word in words[1:-1] if not word.startswith("--"))
    assert copied == let_through
    assert all((root / name).exists() for name in copied)
