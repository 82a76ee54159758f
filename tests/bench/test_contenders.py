import os
import sys

import pytest

from bench.load import Work
from bench.peers.contenders import ROOT, ContenderError, Library, Start

DRIVER = """
import os, time
from bench.drivers.exchange import serve

def load():
    print("noise on standard output")
    def run(prompts, streams, new_tokens):
        os.system("echo more noise")
        return {"wall_s": 0.5, "tokens": sum(new_tokens), "first_s": [0.125]}
    return "driver 1.0", run

serve(load)
"""


def library(tmp_path, code):
    start = Start((sys.executable, "-c", code), {"PYTHONPATH": str(ROOT)})
    return Library("fake", start, tmp_path / "logs" / "fake.log")


def test_a_library_works_while_it_is_entered_and_is_gone_afterwards(tmp_path):
    contender = library(tmp_path, DRIVER)
    with contender as running:
        assert running.version == "driver 1.0"
        for _ in range(2):
            found = running.run(Work(["a", "b"], 2, [7, 9]))
            assert (found["tokens"], found["tok_s"], found["ttft_ms_p50"]) == (16, 32.0, 125.0)
        pid = running._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (tmp_path / "logs" / "fake.log").read_text().count("noise") == 3


def test_one_that_does_not_start_is_an_error_that_names_its_log(tmp_path):
    with (
        pytest.raises(ContenderError, match=r"fake gave no answer: see .*fake\.log"),
        library(tmp_path, "raise SystemExit(3)"),
    ):
        pass


def test_a_stopped_one_gets_no_processor_and_works_again_afterwards(tmp_path):
    with library(tmp_path, DRIVER) as running:
        with running.stopped():
            _, status = os.waitpid(running._process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
        assert running.run(Work(["a"], 1, [8]))["tokens"] == 8
