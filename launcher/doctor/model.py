"""Checks of the model: whether it can be read and run, whether it fits; and its adapters."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from common.errors import StartupError
from common.examination import Examination, ModelFacts, Question, TextExamination, TextQuestion
from launcher.adapters import find_local, parse, verify
from launcher.children import child_environment
from launcher.doctor.finding import Finding, ok, problem, warning
from launcher.model import Model
from launcher.progress import human
from launcher.resolve import Resolution

_Answer = TypeVar("_Answer", Examination, TextExamination)

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
    return _answer("worker", question, Examination, environ)


def _answer(
    package: str, question: msgspec.Struct, kind: type[_Answer], environ: Mapping[str, str]
) -> _Answer:
    """From a process of that package."""
    try:
        answer = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", f"{package}.examine"],
            input=msgspec.json.encode(question), capture_output=True, timeout=_LIMIT_S,
            env=child_environment(environ), check=False,
        )  # fmt: skip
        return msgspec.json.decode(answer.stdout, type=kind)
    except subprocess.TimeoutExpired:
        return kind(problem=f"a {package} process did not answer within {_LIMIT_S} s")
    except msgspec.DecodeError:
        lines = answer.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        return kind(problem=f"a {package} process cannot be started ({lines[-1]})")


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


def text(
    model: Model | None, resolution: Resolution, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Whether a front end can read it. What is still to be converted cannot be tried."""
    if model is None or not (model.directory / "tokenizer.json").is_file():
        return
    question = TextQuestion(
        model_dir=str(model.directory), tokenizer_config_path=resolution["tokenizer_config_path"]
    )
    found = _answer("frontend", question, TextExamination, environ)
    if found.problem:
        yield problem("tokenizer", found.problem)
    elif found.has_template:
        yield ok("tokenizer", "The tokenizer and the chat template can be read.")
    else:
        yield warning(
            "tokenizer",
            "The model has no chat template, so chats are refused: --tokenizer-config-path names a "
            "file with one.",
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
