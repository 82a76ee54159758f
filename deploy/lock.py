"""``python deploy/lock.py``: writes ``deploy/locks/``, the exact packages of the image.

Needs uv. What is wanted comes from pyproject.toml, torch's version from ``tools/install_torch.py``;
every file of every version has its hash, so it does not matter which mirror it comes from, and none
is named. ``server.txt`` holds what every image has, ``cuda.txt`` what a GPU needs beside it (torch
and its libraries), ``build.txt`` what makes the wheel. Standard library only.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "deploy" / "locks"
OLDEST_PYTHON = "3.11"
HEADERS = {
    "server.txt": "In every image; torch is installed apart.",
    "cuda.txt": "In CUDA images beside server.txt.",
    "build.txt": "Builds Millrace's wheel; in no image.",
}
_GPU_ONLY = re.compile(r"torch|triton|nvidia-|cuda-")


def main() -> int:
    """Resolve and write; the exit status."""
    sys.path.insert(0, str(ROOT / "tools"))
    from install_torch import VERSION

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["tracing"], *extras["gpu"]]
    packages = resolved([*wanted, f"torch=={VERSION}"])
    write("server.txt", [entry for entry in packages if not _GPU_ONLY.match(entry)])
    write("cuda.txt", [entry for entry in packages if _GPU_ONLY.match(entry)])
    write("build.txt", resolved(project["build-system"]["requires"]))
    return 0


def resolved(requirements: list[str]) -> list[str]:
    """Every package that the requirements lead to, with its hashes, for all platforms."""
    command = ["uv", "pip", "compile", "--no-config", "--quiet", "--universal", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--python-version", OLDEST_PYTHON, "-"]
    answer = subprocess.run(  # noqa: S603 - our own arguments
        command, input="\n".join(requirements), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        sys.exit(f"uv could not resolve the requirements:\n{answer.stderr}")
    return re.split(r"\n(?=\w)", answer.stdout.strip())


def write(name: str, entries: list[str]) -> None:
    """One lock file, with its header."""
    header = f"# {HEADERS[name]} Made by deploy/lock.py: not to be edited.\n"
    (LOCKS / name).write_text(header + "\n".join(entries) + "\n")


if __name__ == "__main__":
    sys.exit(main())
