"""The runtime directory: private, locked, removed, swept."""

import os
import stat
from pathlib import Path

import pytest

from common.errors import StartupError
from common.pulse import Pulse
from common.sockets import traces_endpoint
from launcher.runtime import open_runtime_directory, sweep, write_private


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_new_runtime_directory_is_private_and_goes_away(temporary: Path) -> None:
    runtime = open_runtime_directory(None)
    assert runtime.path.parent == temporary
    assert stat.S_IMODE(runtime.path.stat().st_mode) == 0o700
    write_private(runtime.path / "x", b"secret")
    assert stat.S_IMODE((runtime.path / "x").stat().st_mode) == 0o600
    runtime.remove()
    assert not runtime.path.exists()


def test_a_given_runtime_directory_is_emptied_of_ours(tmp_path: Path) -> None:
    place = tmp_path / "r"
    runtime = open_runtime_directory(str(place))
    for name in ("settings.json", "requests", "tokens-0", "mine"):
        (place / name).touch()
    Pulse(str(place)).close()
    Path(traces_endpoint(str(place)).removeprefix("ipc://")).touch()
    runtime.remove()
    assert [path.name for path in place.iterdir()] == ["mine"]
    os.close(runtime.lock)
    (place / "failure").write_text("old")
    again = open_runtime_directory(str(place))
    assert not (place / "failure").exists()
    os.close(again.lock)


def test_runtime_directories_that_are_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    with pytest.raises(StartupError, match="0700"):
        open_runtime_directory(str(open_to_all))
    with pytest.raises(StartupError, match="too long"):
        open_runtime_directory(str(tmp_path / ("x" * 120)))
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot be used"):
        open_runtime_directory(str(tmp_path / "file"))


def test_temporary_files_in_a_place_too_deep_for_sockets(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = temporary / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(StartupError, match=r"too long .* --runtime-dir"):
        open_runtime_directory(None)
    assert list(deep.iterdir()) == []


def test_sweeping_leaves_directories_in_use(temporary: Path) -> None:
    used = open_runtime_directory(None)
    left = open_runtime_directory(None)
    fresh = open_runtime_directory(None)
    for runtime in (used, left):
        os.utime(runtime.path / "lock", (0, 0))
    for runtime in (left, fresh):
        os.close(runtime.lock)
    (temporary / "millrace-of-somebody").mkdir(mode=0o700)
    sweep()
    assert used.path.exists()
    assert fresh.path.exists()
    assert not left.path.exists()
    assert (temporary / "millrace-of-somebody").exists()
    used.remove()
