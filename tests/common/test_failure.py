"""The sentence of a process that cannot start."""

import json
import os
from pathlib import Path

import pytest

from common.failure import FAILURE_FILE, record_failure
from common.settings import Settings


def settings(place: Path | str, *, as_json: bool = False) -> Settings:
    return Settings(model_id="m", model_dir="/m", runtime_dir=str(place), json_output=as_json)


def test_the_first_failure_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_failure(settings(tmp_path), "worker", "one")
    record_failure(settings(tmp_path), "worker", "one")  # another shard, for the same reason
    record_failure(settings(tmp_path), "worker", "two")
    record_failure(settings(""), "worker", "three")
    record_failure(None, "worker", "four")
    assert (tmp_path / FAILURE_FILE).read_text() == "one\n"
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "two", "three", "four"]
    assert all("ERROR   worker " in line for line in lines)


def test_a_directory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    record_failure(settings(tmp_path / "gone"), "worker", "one")
    assert not (tmp_path / "gone").exists()


def test_a_full_disk_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("common.failure.os.open", lambda *_: full)
    record_failure(settings(tmp_path), "worker", "one")
    assert capsys.readouterr().err.endswith(" one\n")


def test_it_is_json_where_logs_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_failure(settings(tmp_path, as_json=True), "worker", "no memory")
    line = json.loads(capsys.readouterr().err)
    assert (line["process"], line["level"], line["message"]) == ("worker", "ERROR", "no memory")
