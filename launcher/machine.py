"""What the launcher needs to know of the machine: usable cores and GPUs. Asks, decides nothing."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY_LIMIT_S = 20


@dataclass(frozen=True)
class Machine:
    """The part of the machine that this process may use."""

    cores: int
    gpus: tuple[str, ...] = ()
    """Their names."""


def look_around(environ: dict[str, str]) -> Machine:
    """The machine as this process sees it."""
    return Machine(usable_cores(), gpu_names(environ))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores of this process's affinity, or what a container's CPU limit leaves of them."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return max(1, min(cores, int(quota))) if quota else cores


def _quota(cgroup: Path) -> float | None:
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cores = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max": no limit
    return cores if cores > 0 else None


def gpu_names(environ: dict[str, str]) -> tuple[str, ...]:
    """Names of the visible NVIDIA GPUs, without asking torch."""
    if environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1", "none"):
        return ()
    tool = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if tool is not None:
        try:
            answer = subprocess.run(  # noqa: S603 - a fixed command
                [tool, "--query-gpu=name", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=_QUERY_LIMIT_S, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return ()
        return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())
    return tuple("GPU" for _ in Path("/dev").glob("nvidia[0-9]*"))
