"""Checks of the model: its directory, whether it can be run, whether it fits; and its adapters."""

import subprocess
import sys
from collections.abc import Iterator, Mapping

import msgspec

from common.errors import StartupError
from common.examination import Examination, ModelFacts, Question
from launcher.adapters import find_local, parse, verify
from launcher.children import child_environment
from launcher.doctor.finding import Finding, ok, problem, warning
from launcher.model import Model
from launcher.progress import human
from launcher.resolve import Resolution

_LIMIT_S = 120
_CPU_FRACTION = 0.5
"""Of the memory that is left; the worker takes no more for keys and values."""


def ask_worker(
    model: Model | None, resolution: Resolution | None, environ: Mapping[str, str]
) -> Examination:
    """What a worker says about machine and model, from a process of its own."""
    question = Question()
    if resolution is not None:
        question = Question(
            model_dir=str(model.directory) if model else None,
            dtype=resolution["dtype"],
            kv_cache_dtype=resolution["kv_cache_dtype"],
            quantize=resolution["quantize"],
            device=resolution["device"],
            rope_scaling=resolution["rope_scaling"],
            rope_factor=resolution["rope_factor"],
            num_shard=resolution["num_shard"],
            watermark_gamma=resolution["watermark_gamma"],
        )
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-m", "worker.examine"],
            input=msgspec.json.encode(question), capture_output=True, timeout=_LIMIT_S,
            env=child_environment(environ), check=False,
        )  # fmt: skip
        return msgspec.json.decode(answer.stdout, type=Examination)
    except subprocess.TimeoutExpired:
        return Examination(problem=f"a worker did not look at the machine within {_LIMIT_S} s")
    except msgspec.DecodeError:
        lines = answer.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        return Examination(problem=f"a worker cannot be started ({lines[-1]})")


def usable(model: Model | None, resolution: Resolution, found: Examination) -> Iterator[Finding]:
    """Whether a worker can run it."""
    name = resolution["model_id"]
    if model is None:
        yield warning("model", f"{name} is not on this machine: a start will download it.")
    elif found.model is None:
        yield problem("model", f"{name} cannot be served: {found.problem}.")
    else:
        facts = found.model
        weights = f"weights in {facts.quantization}, " if facts.quantization else ""
        text = f"{name} is complete: {facts.architecture}, {weights}computed in {facts.dtype} on"
        if facts.native:
            yield ok("model", f"{text} {facts.device}.")
        else:
            yield warning(
                "model",
                f"{text} a CPU that has no instructions for {facts.dtype}: --dtype auto or float32 "
                "is faster.",
            )


def adapters(resolution: Resolution) -> Iterator[Finding]:
    """Whether those that are here are whole; whether they fit the model, only a start finds out."""
    try:
        items = parse(resolution)
    except StartupError:
        return  # said already, with the settings
    for item in items:
        try:
            directory = find_local(item, resolution)
            if directory is not None:
                verify(directory, item.name)
        except StartupError as error:
            yield problem("adapter", str(error))
            continue
        place = f"is in {directory}" if directory else "is of the hub: a start asks for it"
        yield ok("adapter", f"{item.name} {place}.")


def memory(resolution: Resolution, found: Examination) -> Iterator[Finding]:
    """Weights, and keys and values, against what is left. On a GPU the worker measures itself."""
    facts = found.model
    left = f"{human(found.available_bytes)} of memory are available"
    if facts is None or facts.device != "cpu" or not found.available_bytes:
        yield ok("memory", f"{left}.")
        return
    weights = facts.weights_bytes * resolution["num_replicas"]
    rest = found.available_bytes - weights
    request = _request_bytes(facts, resolution)
    needed = f"the weights need {human(weights)}"
    if rest < 0:
        yield problem(
            "memory",
            f"{left}, but {needed}: use a smaller model, a smaller --dtype or more memory.",
        )
        return
    room = rest * _CPU_FRACTION / resolution["num_replicas"]
    given = resolution["max_batch_total_tokens"]
    if isinstance(given, int):  # auto where the settings contradict each other
        room = float(rest)
        request = max(request, facts.kv_bytes_per_token * given)
    if room < request:
        yield problem(
            "memory",
            f"{left}, {needed}, and keys and values {human(request)}: lower --max-total-tokens or "
            "--max-batch-total-tokens.",
        )
        return
    if not facts.kv_bytes_per_token:
        yield ok("memory", f"{left}, {needed}; what it keeps of a text does not grow with it.")
        return
    tokens = int(room // facts.kv_bytes_per_token)
    yield ok("memory", f"{left}, {needed}; there is room for keys and values of {tokens} tokens.")


def _request_bytes(facts: ModelFacts, resolution: Resolution) -> int:
    """Of one request of the largest size."""
    return facts.kv_bytes_per_token * int(resolution["max_total_tokens"])
