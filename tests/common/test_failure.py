"""The sentence of a process that cannot start."""

from pathlib import Path

from common.failure import FAILURE_FILE, record_failure


def test_the_first_failure_stays(tmp_path: Path) -> None:
    record_failure(str(tmp_path), "one")
    record_failure(str(tmp_path), "two")
    record_failure("", "three")
    assert (tmp_path / FAILURE_FILE).read_text() == "one\n"


def test_a_directory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    record_failure(str(tmp_path / "gone"), "one")
    assert not (tmp_path / "gone").exists()
