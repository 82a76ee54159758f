"""The kernels compile for a Hopper GPU as they are called: what the interpreter cannot tell.

A few of them, in one of their forms: ``make gpu-compile`` compiles all.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compiling.py")
_FEW = (
    "linear._linear_of_few", "store._store", "decode._attend", "decode._combine", "chunks._attend",
    "routing._choose", "routing._sort", "experts._multiply", "mixture._add_weighted",
    "gather._gather", "penalties._penalize", "filters._keep", "draw._race", "draw._finish",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.timeout(300)
def test_the_kernels_compile_without_a_gpu(tmp_path):
    """In a process of its own: here, kernels are for the interpreter."""
    environment = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(tmp_path),
        "TRITON_DEFAULT_FP_FUSION": "1",
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), "few"],
        env=environment, capture_output=True, text=True, timeout=290, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for kernel in _FEW:
        assert f"| {kernel} |" in finished.stdout
    assert "WRONG" not in finished.stdout
