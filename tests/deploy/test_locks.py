"""The lock files say what pyproject.toml says, exactly, and name nobody."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.queries import DEPLOY, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((DEPLOY / "locks").glob("*.txt"))


def versions(*names: str) -> dict[str, set[Version]]:
    """Package to its versions; there may be one for each version of Python."""
    found: dict[str, set[Version]] = {}
    for name in names:
        text = (DEPLOY / "locks" / name).read_text()
        for package, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
            found.setdefault(canonicalize_name(package), set()).add(Version(version))
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_package_has_hashes_and_no_place(path: object) -> None:
    text = (DEPLOY / "locks" / str(getattr(path, "name", path))).read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\w)", text.split("\n", 1)[1].strip())
    assert entries
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+", entry)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:60]


def test_the_locks_fit_the_project() -> None:
    server, cuda = versions("server.txt"), versions("cuda.txt")
    tracing = PROJECT["project"]["optional-dependencies"]["tracing"]
    for text in [*PROJECT["project"]["dependencies"], *tracing]:
        wanted = Requirement(text)
        found = (cuda if wanted.name == "torch" else server)[canonicalize_name(wanted.name)]
        assert all(version in wanted.specifier for version in found), text
    build = versions("build.txt")
    for text in PROJECT["build-system"]["requires"]:
        wanted = Requirement(text)
        assert all(version in wanted.specifier for version in build[wanted.name])
    assert not server.keys() & cuda.keys()


def test_both_variants_have_the_same_torch() -> None:
    (pinned,) = versions("cuda.txt")["torch"]
    told = re.search(r'^VERSION = "(.+)"', (ROOT / "tools/install_torch.py").read_text(), re.M)
    assert told is not None
    assert str(pinned) == told[1]
