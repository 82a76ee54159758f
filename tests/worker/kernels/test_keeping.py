"""Compiled libraries are loaded only whole, and from places that nobody else writes to."""

import fcntl
import os
from pathlib import Path

import pytest

from worker.kernels.cpu.keeping import alone, is_whole, keep, own_directory, scratch


def kept(directory: Path, content: bytes = b"code") -> Path:
    (directory / "made").write_bytes(content)
    keep(directory / "made", directory / "kept.so")
    return directory / "kept.so"


def test_what_is_kept_is_whole(tmp_path: Path) -> None:
    path = kept(tmp_path, b"code" * 1000)
    assert is_whole(path)
    assert path.stat().st_mode & 0o777 == 0o755
    assert path.read_bytes().startswith(b"code" * 1000)
    assert [found.name for found in tmp_path.iterdir()] == ["kept.so"]


def test_one_at_a_time(tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        with alone(tmp_path), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(other)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_a_library_was_made(tmp_path: Path) -> None:
    """Not even by those who were killed over it; who is at it still keeps his place."""
    directory = tmp_path / "kernels"
    with scratch(directory) as killed, scratch(directory) as busy:
        (killed / "half.so").write_bytes(b"code")
        os.utime(killed, (0, 0))
        with scratch(directory) as place:
            assert place.parent == directory
            assert set(directory.iterdir()) == {busy, place}
        assert set(directory.iterdir()) == {busy}
    assert list(directory.iterdir()) == []


def test_what_was_cut_off_or_changed_is_not(tmp_path: Path) -> None:
    path = kept(tmp_path)
    content = path.read_bytes()
    for harmed in (b"", content[:10], content[:-1], b"CODE" + content[4:], b"not a library"):
        path.write_bytes(harmed)
        assert not is_whole(path)


def test_links_pipes_and_directories_are_not(tmp_path: Path) -> None:
    path = kept(tmp_path)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", ".", "missing"):
        assert not is_whole(tmp_path / name)


def test_a_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = own_directory(tmp_path / "link" / "a" / "b")
    assert found == tmp_path / "real" / "a" / "b"
    assert found.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [".cache", ".cache/millrace"])
def test_where_others_may_write_nothing_is_taken_from(tmp_path: Path, name: str) -> None:
    directory = tmp_path / ".cache" / "millrace"
    directory.mkdir(parents=True)
    (tmp_path / name).chmod(0o757)
    with pytest.raises(PermissionError, match=f"others may write to {tmp_path / name}"):
        own_directory(directory)


def test_a_place_like_tmp_is_no_danger_but_not_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert own_directory(tmp_path / "kernels") == tmp_path / "kernels"
    with pytest.raises(PermissionError, match="others may write"):
        own_directory(tmp_path)


def test_directories_of_other_users_are_refused(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a directory away")
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to user 12345"):
        own_directory(tmp_path / "kernels", user=1000)
    os.chmod(tmp_path, 0o700)
    assert own_directory(tmp_path / "kernels", user=12345)
