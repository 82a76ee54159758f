"""Installs torch into the running interpreter's environment, fit for the machine.

With an NVIDIA GPU: the usual wheel with its CUDA libraries. Without one: a CPU build, so that
gigabytes of CUDA do not arrive for nothing. The usual Linux wheel cannot be made to do by leaving
its dependencies out: it loads CUDA libraries when it is imported. So the CPU build is looked for

1. under its exact name (``2.13.0+cpu``) in the package indexes that pip is set up with;
2. by uv (installed for that), which knows where PyTorch publishes CPU builds.

If neither finds one, a sentence says so, and the usual wheel is taken, which computes on CPUs, too;
with ``--no-cuda``, as for images, nothing is. ``TORCH_INSTALL_ARGS`` ("--index-url …") goes to pip
instead of all this. Runs before anything of Millrace is installed: standard library only.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "2.13.0"
ACCEPTED = ((2, 11), (3, 0))
"""What pyproject.toml accepts."""


def main(arguments: list[str]) -> int:
    """Install; the exit status."""
    own_arguments = os.environ.get("TORCH_INSTALL_ARGS", "").split()
    installed = installed_version()
    if own_arguments:
        return pip(f"torch=={VERSION}", *own_arguments)
    if installed is not None and is_accepted(installed):
        return 0
    if has_gpu() or sys.platform != "linux":
        return pip(f"torch=={VERSION}")
    print(f"no NVIDIA GPU: installing the CPU build of torch {VERSION}", flush=True)
    if pip(f"torch=={VERSION}+cpu", quiet=True) == 0:
        return 0
    if pip("uv", quiet=True) == 0 and uv(f"torch=={VERSION}") == 0:
        return 0
    no_cuda = "--no-cuda" in arguments
    instead = "nothing is installed" if no_cuda else "taking the usual one, 3 GB more for CUDA"
    print(
        f"no CPU build of torch {VERSION} was found for Python {sys.version.split()[0]}: {instead}."
        " To have one, give pip the index that PyTorch's installation page names for CPUs:"
        " TORCH_INSTALL_ARGS='--index-url …'",
        file=sys.stderr,
        flush=True,
    )
    return 1 if no_cuda else pip(f"torch=={VERSION}")


def installed_version() -> str | None:
    """Of torch, without importing it."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def is_accepted(version: str) -> bool:
    """Whether pyproject.toml is content with this version."""
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    return ACCEPTED[0] <= numbers < ACCEPTED[1]


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU with a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return any(Path("/dev").glob("nvidia[0-9]*"))
    return subprocess.run([tool, "-L"], capture_output=True, check=False).returncode == 0  # noqa: S603


def pip(*arguments: str, quiet: bool = False) -> int:
    """``pip install``; quiet where a failure is no news."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    return subprocess.run(  # noqa: S603 - our own arguments, or the user's
        [*command, *arguments], check=False, stderr=subprocess.DEVNULL if quiet else None
    ).returncode


def uv(requirement: str) -> int:
    """``uv pip install`` with PyTorch's CPU builds; quiet, as a failure is no news."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
    return subprocess.run(  # noqa: S603 - our own arguments
        [*command, "--torch-backend", "cpu", requirement], check=False, stderr=subprocess.DEVNULL
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
