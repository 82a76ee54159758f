"""Checks of the machine: interpreter, packages, processor, limits of the system, GPUs."""

import platform
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.examination import Examination
from launcher.doctor.finding import Finding, ok, problem, warning
from launcher.machine import Machine, cpu_name, driver_version, visible_cores
from launcher.progress import human
from launcher.report import PACKAGES, version, version_of

_PYTHONS = ((3, 11), (3, 12))
_FILES_WANTED = 4096
_SHARED = Path("/dev/shm")  # noqa: S108 - looked at only
_SHARED_WANTED_BYTES = 1_000_000_000


def software(python: tuple[int, ...] = sys.version_info[:2]) -> Iterator[Finding]:
    """Interpreter, system, packages."""
    shown = ".".join(map(str, python))
    if python in _PYTHONS:
        yield ok("python", f"Python {platform.python_version()} runs Millrace {version()}.")
    else:
        yield problem("python", f"Python {shown} is not supported: use 3.11 or 3.12.")
    if sys.platform != "linux":
        yield problem("system", f"{sys.platform} is not supported: Millrace needs Linux.")
    missing = [name for name in PACKAGES if version_of(name) == "not installed"]
    if missing:
        yield problem(
            "packages", f"{', '.join(missing)} not installed: install Millrace again with pip."
        )


def torch(found: Examination) -> Iterator[Finding]:
    """The library that computes, and what it makes of the processor."""
    if not found.torch:
        yield problem("torch", f"{found.problem}: install torch with tools/install_torch.py.")
        return
    build = f"for CUDA {found.cuda}" if found.cuda else "for CPUs"
    yield ok("torch", f"torch {found.torch}, built {build}.")
    types = ", ".join(found.native_types)
    text = f"{cpu_name()}; torch uses {found.cpu_capability}, natively computed types: {types}."
    if found.cpu_capability in ("DEFAULT", "NO AVX"):
        yield warning("processor", f"{text} Without AVX2 a model on this CPU is very slow.")
    else:
        yield ok("processor", text)


def compiler(machine: Machine, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Kernels are compiled where they run; those for CPUs can be done without, or brought along."""
    path = environ.get("PATH")
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name, path=path)), None)
    if found:
        yield ok("compiler", f"There is a C compiler ({found}).")
    elif machine.gpus:
        yield warning(
            "compiler", "There is no C compiler, and kernels for GPUs need one: install gcc."
        )
    else:
        yield ok(
            "compiler",
            "There is no C compiler (gcc): unless kernels for this CPU have been compiled before, "
            "as in the image, torch's operators compute, in bfloat16 two to four times slower.",
        )


def gpus(machine: Machine, found: Examination, environ: Mapping[str, str]) -> Iterator[Finding]:
    """What the driver shows against what torch can use."""
    driver = driver_version(environ)
    if not machine.gpus and found.cuda:
        yield warning(
            "gpu",
            f"No NVIDIA GPU is visible, and torch is built for CUDA {found.cuda}: models run on "
            "the CPU. A container needs --gpus all.",
        )
    elif not machine.gpus:
        yield ok("gpu", "No NVIDIA GPU is visible: models run on the CPU.")
    elif found.gpus:
        yield ok("gpu", f"{', '.join(found.gpus)}; driver {driver or 'unknown'}.")
    elif found.torch and not found.cuda:
        yield warning(
            "gpu",
            f"{machine.gpus[0]} is visible, but this torch is built for CPUs and leaves it idle: "
            "install the CUDA build with tools/install_torch.py.",
        )
    else:
        yield warning(
            "gpu",
            f"{machine.gpus[0]} is visible, but torch cannot use it: its CUDA {found.cuda} may "
            f"need a newer driver than {driver or 'this one'}.",
        )


def cores(machine: Machine) -> Iterator[Finding]:
    """What a container leaves of the processor."""
    visible = visible_cores()
    limited = f", of {visible} that are visible: the CPU limit of the container counts"
    yield ok("cores", f"{machine.cores} cores{limited if visible > machine.cores else ''}.")


def files(clients: int, hard: int | None = None) -> Iterator[Finding]:
    """Every stream is an open file; the server raises the soft limit itself."""
    if hard is None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = max(_FILES_WANTED, 4 * clients)
    if hard in (resource.RLIM_INFINITY, -1) or hard >= wanted:
        shown = "without a limit" if hard in (resource.RLIM_INFINITY, -1) else f"up to {hard}"
        yield ok("open files", f"A process may open files {shown}.")
    else:
        yield warning(
            "open files",
            f"A process may open {hard} files at most, and every client needs one: raise "
            f"ulimit -n (LimitNOFILE, --ulimit nofile) to {wanted}.",
        )


def shared_memory(shards: int, place: Path = _SHARED) -> Iterator[Finding]:
    """Needed where several processes compute one model."""
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        free = 0
    if shards > 1 and free < _SHARED_WANTED_BYTES:
        yield warning(
            "shared",
            f"{human(free)} of {place} are free; the shards of a model exchange tensors "
            "there: give at least 1 GB (--shm-size 1g).",
        )
    else:
        yield ok("shared", f"{human(free)} of {place} are free.")
