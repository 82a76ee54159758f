"""What the launcher needs to know of the machine: usable cores and GPUs. Asks, decides nothing."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TOOL = "nvidia-smi"
_QUERY_LIMIT_S = 20


@dataclass(frozen=True)
class Machine:
    """The part of the machine that this process may use."""

    cores: int
    gpus: tuple[str, ...] = ()
    """Their names."""
    cpus: tuple[int, ...] = ()
    """The numbers of the processors that this process may run on."""


def look_around(environ: Mapping[str, str]) -> Machine:
    """The machine as this process sees it."""
    return Machine(usable_cores(), gpu_names(environ), visible_cpus())


def visible_cpus() -> tuple[int, ...]:
    """The processors of this process's affinity, by their numbers."""
    return tuple(sorted(os.sched_getaffinity(0)))


def visible_cores() -> int:
    """How many these are."""
    return len(visible_cpus())


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Visible cores, or what a container's CPU limit leaves of them."""
    cores = visible_cores()
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


def cpu_name(information: Path = Path("/proc/cpuinfo")) -> str:
    """As the kernel has it."""
    try:
        lines = information.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def total_memory() -> int:
    """Bytes of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpu_names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the visible NVIDIA GPUs, without asking torch."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen == "":
        return ()
    if shutil.which(_TOOL, path=environ.get("PATH")) is not None:
        names = _asked(environ, "--query-gpu=name", "--format=csv,noheader")
    else:
        names = tuple("GPU" for _ in Path("/dev").glob("nvidia[0-9]*"))
    return names if chosen is None else _visible(names, chosen)


def _visible(names: tuple[str, ...], chosen: str) -> tuple[str, ...]:
    """Of all that the driver shows, what CUDA does: those chosen, up to the first that is none."""
    found: list[str] = []
    for item in map(str.strip, chosen.split(",")):
        if names and item.startswith(("GPU-", "MIG-")):  # not looked up: all are taken to be alike
            found.append(names[0])
        elif item.isdecimal() and int(item) < len(names):
            found.append(names[int(item)])
        else:
            break
    return tuple(found)


def driver_version(environ: Mapping[str, str]) -> str | None:
    """Of the NVIDIA driver; None if it does not say."""
    return next(iter(_asked(environ, "--query-gpu=driver_version", "--format=csv,noheader")), None)


def gpu_table(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The driver's own summary; nothing without one."""
    return _asked(environ)


def _asked(environ: Mapping[str, str], *arguments: str) -> tuple[str, ...]:
    """Lines that nvidia-smi prints; none if it is not there or does not work."""
    tool = shutil.which(_TOOL, path=environ.get("PATH"))
    if tool is None:
        return ()
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            [tool, *arguments], capture_output=True, text=True, timeout=_QUERY_LIMIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())
