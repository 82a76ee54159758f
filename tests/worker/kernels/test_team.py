"""How threads share work, some of them away: a program compiled with the code of the kernels."""

import shutil
import subprocess
from pathlib import Path

import pytest

import worker.kernels.cpu

NATIVE = Path(worker.kernels.cpu.__file__).parent / "native"
PHASES, UNITS = 300, 7


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("no C compiler on this machine")
    made = tmp_path_factory.mktemp("team") / "team"
    sources = [Path(__file__).with_name("team.c"), NATIVE / "team.c"]
    flags = ["-O2", "-fopenmp", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE}"]
    subprocess.run(["gcc", *flags, *sources, "-o", made], check=True)
    return made


CASES = [(1,), (2,), (3,), (16,), (2, 0), (2, 1), (3, 1), (16, 0), (16, 9)]


@pytest.mark.parametrize("case", CASES)
def test_everything_is_done_once_whoever_is_away(program, case):
    """So many threads, and which of them runs only when the others have done everything."""
    run = subprocess.run([program, *map(str, case)], capture_output=True, timeout=60)
    assert run.returncode == 0
    counts = [1] * UNITS
    wanted = b"".join(
        bytes(counts + [int(u < phase % (UNITS + 1)) for u in range(UNITS)])
        for phase in range(PHASES)
    )
    assert run.stdout == wanted
