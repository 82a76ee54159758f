"""Who is compared, and how each is started: the one place that knows the peers.

Every peer gets what its own documentation recommends for such a machine, the same model files (in
its own format where it has one), bfloat16 or what takes its place where the processor lacks it, all
cores, room for 32 streams. A peer that is not installed is said to be so. Knows nothing of what is
measured.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.machine import multiplies_bfloat16, processor
from bench.peers.contenders import ROOT, Contender, ContenderError, Library, Server, Start
from launcher.children import WAITING

BENCH = ROOT / "bench"
ENVIRONMENTS = BENCH / "peers-env"
LLAMA_SOURCE = Path("source", "vendor", "llama.cpp")
LLAMA_SERVER = Path("build", "bin", "llama-server")
TCMALLOC_DIRECTORY = "tcmalloc"
KV_TOKENS = 1 << 16
"""Room of every peer whose documentation asks for it to be set: 2,048 tokens for 32 streams."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are."""

    environments: Path
    """A directory for each peer that is installed."""
    model: Path
    """The checkpoint; converted ones are put beside it."""
    logs: Path
    server_arguments: str = ""
    """More flags for our own server."""
    worker_threads: int | None = None
    """Of our server and of the engine beside it; None: a thread a core, as both have it."""

    @property
    def gguf(self) -> Path:
        """The model as llama.cpp reads it."""
        return self.model.with_name(f"{self.model.name}.gguf")

    @property
    def openvino(self) -> Path:
        """The model as OpenVINO reads it."""
        return self.model.with_name(f"{self.model.name}-openvino")

    def log(self, name: str) -> Path:
        """What a contender prints."""
        return self.logs / f"{name}.log"

    @property
    def threads_flag(self) -> tuple[str, ...]:
        """As our server and the bare engine take it."""
        return () if self.worker_threads is None else ("--worker-threads", str(self.worker_threads))


@dataclass(frozen=True, slots=True)
class Peer:
    """One of those we are compared with."""

    name: str
    describes: str
    """How it is run, for the table."""
    needs: tuple[str, ...]
    """Files below the environments without which it is not installed; none: always there."""
    make: Callable[[Places], Contender]
    prepare: Callable[[Places], None] = lambda places: None
    """Converts the model at first use."""
    sustained: bool = False
    """Whether it is put under sustained load, too, for what our pipeline costs."""

    def is_installed(self, places: Places) -> bool:
        """Whether it can be started."""
        return all((places.environments / path).exists() for path in self.needs)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def ours(places: Places) -> Server:
    """Our server, as a user would start it."""
    command = [sys.executable, "-m", "launcher", "--hostname", "127.0.0.1", "--port", "{port}"]
    command += ["--prometheus-port", "0", "--model-id", str(places.model)]
    command += ["--max-input-tokens", "4096", "--max-total-tokens", "8192"]
    command += ["--max-batch-total-tokens", str(KV_TOKENS), *places.threads_flag]
    command += shlex.split(places.server_arguments)
    return Server("ours", Start(tuple(command)), places.log("ours"))


def _engine(places: Places) -> Contender:
    command = [sys.executable, "-m", "bench.engine", str(places.model), "--serve"]
    start = Start((*command, *places.threads_flag), WAITING)
    return Library("engine", start, places.log("engine"))


def _llama_cpp(places: Places) -> Contender:
    command = [str(places.environments / "llama.cpp" / LLAMA_SERVER), "-m", str(places.gguf)]
    command += ["--host", "127.0.0.1", "--port", "{port}", "--alias", "tgi"]
    command += ["-t", str(cores()), "-np", "32", "-c", str(KV_TOKENS), "-b", "4096", "-fa", "on"]
    return Server("llama.cpp", Start(tuple(command)), places.log("llama.cpp"))


def _convert_to_gguf(places: Places) -> None:
    if not places.gguf.exists():
        source = places.environments / "llama.cpp" / LLAMA_SOURCE
        command: list[str | Path] = [sys.executable, "-m", "bench.peers.gguf"]
        command += [source, places.model, places.gguf]
        _convert(command, places.log("gguf"))


def tcmalloc_of(environment: Path) -> Path | None:
    """The allocator that vLLM wants preloaded, if it was to be had."""
    found = environment.glob(f"{TCMALLOC_DIRECTORY}/usr/lib/*/libtcmalloc_minimal.so.4")
    return next(found, None)


def _vllm(places: Places) -> Contender:
    environment = places.environments / "vllm"
    preloaded = [tcmalloc_of(environment), environment / "lib" / "libiomp5.so"]
    variables = {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        "LD_PRELOAD": ":".join(str(path) for path in preloaded if path is not None),
    }
    return _vllm_with(variables, places, "vllm")


def _vllm_plain(places: Places) -> Contender:
    return _vllm_with({}, places, "vllm-plain")


def _vllm_with(variables: Mapping[str, str], places: Places, name: str) -> Contender:
    environment = places.environments / "vllm"
    command = (
        *(str(environment / "bin" / "vllm"), "serve", str(places.model)),
        *("--dtype", "bfloat16", "--max-model-len", "4096", "--served-model-name", "tgi"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    )
    variables = {"VLLM_CPU_KVCACHE_SPACE": "2", **variables}
    return Server(name, Start(command, variables), places.log(name))


def _openvino(places: Places) -> Contender:
    python = places.environments / "openvino" / "bin" / "python"
    precision = "bf16" if multiplies_bfloat16(processor()["flags"]) else "f32"
    driver = (str(python), "-m", "bench.drivers.openvino_genai")
    command = (*driver, str(places.openvino), precision)
    return Library("openvino", Start(command), places.log("openvino"))


def _convert_to_openvino(places: Places) -> None:
    if not (places.openvino / "openvino_model.bin").exists():
        tool = places.environments / "openvino" / "bin" / "optimum-cli"
        command: list[str | Path] = [tool, "export", "openvino", "--model", places.model]
        command += ["--task", "text-generation-with-past", places.openvino]
        _convert(command, places.log("openvino-export"))


def _serve(places: Places) -> Contender:
    command = (
        *(str(places.environments / "transformers" / "bin" / "transformers"), "serve"),
        *(str(places.model), "--continuous-batching", "--dtype", "bfloat16", "--device", "cpu"),
        *("--host", "127.0.0.1", "--port", "{port}"),
    )
    log = places.log("transformers-serve")
    model = str(places.model)
    return Server("transformers-serve", Start(command), log, model=model, ignores_eos=False)


def _generate(places: Places) -> Contender:
    python = places.environments / "transformers" / "bin" / "python"
    command = (str(python), "-m", "bench.drivers.transformers_generate", str(places.model))
    log = places.log("transformers-generate")
    return Library("transformers-generate", Start(command), log)


def _convert(command: list[str | Path], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            cwd=ROOT,
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode:
        raise ContenderError(f"the model cannot be converted: see {log}")


PEERS = (
    Peer("engine", "our engine without HTTP, text, scheduler", (), _engine, sustained=True),
    Peer(
        "llama.cpp",
        "llama-server, bf16 GGUF, over HTTP",
        (f"llama.cpp/{LLAMA_SERVER}",),
        _llama_cpp,
        _convert_to_gguf,
    ),
    Peer(
        "openvino",
        "OpenVINO GenAI, continuous batching, as a library (no HTTP)",
        ("openvino/bin/optimum-cli",),
        _openvino,
        _convert_to_openvino,
    ),
    Peer("vllm", "vLLM for CPU, over HTTP", ("vllm/bin/vllm",), _vllm),
    Peer(
        "vllm-plain",
        "the same as pip leaves it: nothing preloaded, nothing bound",
        ("vllm/bin/vllm",),
        _vllm_plain,
    ),
    Peer(
        "transformers-serve",
        "transformers serve --continuous-batching, over HTTP",
        ("transformers/bin/transformers",),
        _serve,
    ),
    Peer(
        "transformers-generate",
        "transformers generate, static batches, as a library",
        ("transformers/bin/transformers",),
        _generate,
    ),
)
