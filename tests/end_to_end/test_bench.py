"""``millrace bench`` against the real server, by every interface."""

import json
from pathlib import Path

import pytest

from launcher.bench.protocols import PROTOCOLS
from launcher.commands.bench import run
from tests.end_to_end.harness import Server

SMALL = ["--num", "3", "--concurrency", "3", "--warmup", "0", "--prompt-tokens", "40"]


@pytest.mark.parametrize("api", PROTOCOLS)
def test_every_interface_is_measured(server: Server, api: str, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    arguments = ["--url", server.url, "--api", api, *SMALL, "--output-tokens", "6"]
    assert run([*arguments, "--output", str(output)], {}) == 0
    found = json.loads(output.read_text())
    assert (found["completed"], found["failed"]) == (3, 0)
    assert not found["output_tokens_counted_as_events"]
    most = 3 * 6
    if api == "tgi":  # answers end by themselves
        assert 3 <= found["total_output_tokens"] <= most
    else:
        assert found["total_output_tokens"] == most
    assert 3 * 20 < found["total_input_tokens"] < 3 * 80, "lengths fit roughly"
    assert 0 < found["median_ttft_ms"] <= found["median_e2el_ms"]


def test_what_is_too_long_is_a_failure(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--url", server.url, *SMALL[:-1], "9000", "--output-tokens", "2"], {}) == 1
    assert "FAILED" in capsys.readouterr().out
