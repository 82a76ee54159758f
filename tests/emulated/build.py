"""Compiles ``device.cpp`` against the torch and the Triton that are installed.

What they ask of CUDA and of cuBLAS, and ``device.cpp`` does not have, gets a stub.
"""

import re
import subprocess
import sysconfig
from pathlib import Path

import torch
import triton

NAME = "libcuda.so.1"
"""As Triton looks for it; torch finds the same names in it because it is loaded first."""
_SOURCE = Path(__file__).with_name("device.cpp")
_STUBS = """extern "C" int emulated_product();
constexpr int NOT_SUPPORTED = 801;  // cudaErrorNotSupported
"""
_TRITON = Path(triton.__file__).parent / "backends" / "nvidia"
_LIBRARIES = ("libc10_cuda.so", "libtorch_cuda.so", "libtorch_python.so", "libtorch_nvshmem.so")


def build(directory: Path) -> Path:
    """The library, new. Raises CalledProcessError; the compiler has said why."""
    stubs = directory / "stubs.cpp"
    stubs.write_text(_STUBS + "".join(map(_stub, sorted(_asked_for() - _defined()))))
    library = directory / NAME
    command = ["g++", "-O1", "-fPIC", "-shared", "-std=c++17", "-w", f"-Wl,-soname,{NAME}"]
    command += [f"-I{place}" for place in _headers()]
    command += ["-o", str(library), str(_SOURCE), str(stubs), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def _headers() -> list[Path]:
    """NVIDIA's, which come with torch's wheels; what those lack comes with Triton's."""
    packages = Path(sysconfig.get_path("purelib"))
    return [*packages.glob("nvidia/cu[0-9]*/include"), _TRITON / "include"]


def _asked_for() -> set[str]:
    """Functions of the runtime and of cuBLAS for torch, of the driver for Triton."""
    libraries = [Path(torch.__file__).parent / "lib" / name for name in _LIBRARIES]
    command = ["nm", "-D", "--undefined-only", *(str(file) for file in libraries if file.exists())]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    calls = (_TRITON / "driver.c").read_text()
    return {
        *re.findall(r" U ((?:cuda[A-Z]|cublas)\w+)", listed),
        *re.findall(r"\b(cu[A-Z]\w+)\(", calls),
    }


def _defined() -> set[str]:
    return set(re.findall(r"^EXPORT .*?\b(\w+)\(", _SOURCE.read_text(), re.MULTILINE))


def _stub(name: str) -> str:
    does = "emulated_product()" if name.startswith("cublas") else "NOT_SUPPORTED"
    return f'extern "C" int {name}(...) {{ return {does}; }}\n'
