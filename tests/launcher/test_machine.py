"""Cores and GPUs, as a container sees them."""

import os
from pathlib import Path

import pytest

from launcher.machine import gpu_names, usable_cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_cores(tmp_path: Path, files, limit) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == (limit or len(os.sched_getaffinity(0)))


def test_gpus(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'NVIDIA H200\\nNVIDIA H200\\n'\n")
    tool.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    assert gpu_names(environ) == ("NVIDIA H200", "NVIDIA H200")
    assert gpu_names({**environ, "CUDA_VISIBLE_DEVICES": ""}) == ()
    tool.write_text("#!/bin/sh\nprintf 'A\\nB\\nC\\nD\\n'\n")  # all of them, whatever CUDA shows
    for chosen, shown in {
        "2": "C",
        "3,0": "DA",
        " 1 , 2": "BC",
        "1,7,2": "B",
        "-1": "",
        "none": "",
        "GPU-8932f937,MIG-1": "AA",
    }.items():
        assert gpu_names({**environ, "CUDA_VISIBLE_DEVICES": chosen}) == tuple(shown)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_names(environ) == ()
