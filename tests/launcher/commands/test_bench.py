"""``millrace bench`` as its user meets it: tables, files, sentences, exit statuses."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from common.errors import StartupError
from launcher.commands.bench import run
from launcher.resolve import UsageError
from tests.launcher.bench.standin import Standin, serving
from tests.launcher.standins import ROOT
from tests.processes import started

SMALL = ["--num", "6", "--prompt-tokens", "20", "--output-tokens", "4", "--warmup", "1"]


def test_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = Standin()
    output, plot = tmp_path / "out.json", tmp_path / "out.svg"
    with serving(state) as url:
        arguments = ["--url", url, *SMALL, "--concurrency", "3", "--detailed"]
        status = run(
            [*arguments, "--output", str(output), "--plot", str(plot)], {"API_KEY": "hush,l"}
        )
    assert status == 0
    assert len(state.asked) == 2 + 1 + 6
    assert {key for _, _, key in state.asked} == {"Bearer hush"}
    found = json.loads(output.read_text())
    assert (found["completed"], found["failed"], found["max_concurrency"]) == (6, 0, 3)
    assert found["backend"] == "openai-chat"
    assert found["model_id"] == "stand-in"
    assert found["total_output_tokens"] == 24
    assert found["input_lens"] == [21] * 6
    assert "hush" not in "".join(capsys.readouterr()) + output.read_text()
    assert len(ET.parse(plot).getroot().findall("{*}g")) == 4


def test_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, plot = tmp_path / "out.json", tmp_path / "out.svg"
    with serving(Standin()) as url:
        arguments = ["--url", url, "--api", "tgi", "--scenario", "fixed,chat", "--sweep", "2"]
        status = run([*arguments, *SMALL, "--output", str(output), "--plot", str(plot)], {})
    assert status == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["scenario"] for line in lines] == ["fixed"] * 3 + ["chat"] * 3
    assert [line["max_concurrency"] for line in lines] == [128, None, None] * 2
    assert lines[2]["request_rate"] == pytest.approx(lines[0]["request_throughput"])
    assert lines[1]["request_rate"] == pytest.approx(lines[0]["request_throughput"] / 2)
    names = [text.text for text in ET.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert {"throughput", "fixed median", "chat p99"} <= set(names)
    assert capsys.readouterr().out.count("time to first token") == 6


def test_failures_are_loud(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Standin(break_off=True)) as url:
        assert run(["--url", url, *SMALL, "--api", "tgi"], {}) == 1
    printed = capsys.readouterr()
    assert "6 failed" in printed.out
    assert "FAILED 6 times: the stream broke off after 2 events" in printed.out
    assert "time to first token" not in printed.out, "nothing was measured"
    assert printed.err.splitlines()[-1].startswith("millrace: 6 of 6 requests failed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "0"], "number above 0"),
        (["--concurrency", "2", "--rate", "1"], "not allowed with"),
        (["--scenario", "poetry"], "is not one of chat, code"),
        (["--concurency", "2"], "unrecognized arguments"),
        (["--num", "x"], "whole number"),
        (["--warmup", "-1"], "--warmup"),
    ],
)
def test_what_cannot_be_understood(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(arguments, {})


def test_a_file_that_cannot_be_written_is_noticed_first(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no directory"):
        run(["--output", str(tmp_path / "no" / "out.json")], {})


def test_nobody_there() -> None:
    with pytest.raises(StartupError, match=r"127\.0\.0\.1:1 does not answer"):
        run(["--url", "http://127.0.0.1:1"], {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_stopped(number: signal.Signals, tmp_path: Path) -> None:
    state = Standin(silent=True)
    with (
        serving(state) as url,
        started(
            [sys.executable, "-m", "launcher", "bench", "--url", url],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        ) as process,
    ):  # fmt: skip
        assert state.reached.wait(30)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert printed == b""
