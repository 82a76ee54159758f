"""All checks, in the order in which they are shown."""

from collections.abc import Iterator, Sequence

from common.errors import StartupError
from launcher.checkpoint import verify
from launcher.doctor import machine as machines
from launcher.doctor import model as models
from launcher.doctor import places
from launcher.doctor.finding import Finding, counted, ok, problem, warning
from launcher.limits import derive, read_context
from launcher.machine import Machine, look_around
from launcher.model import Model, find_downloaded
from launcher.prepare import check_sources
from launcher.resolve import Given, Resolution, resolve


def examine(given: Sequence[Given], environ: dict[str, str]) -> Iterator[Finding]:
    """Everything that can be looked at, whatever is found on the way."""
    machine = look_around(environ)
    yield from machines.software()
    wrong: list[Finding] = []
    resolution = _settings(given, environ, wrong)
    model = _model(resolution, environ, wrong) if resolution else None
    found = models.ask_worker(model, resolution, environ)
    yield from machines.torch(found)
    yield from machines.gpus(machine, found, environ)
    yield from machines.compiler(machine, environ)
    yield from machines.cores(machine)
    yield from places.token(environ)
    if resolution is not None:
        _derive(resolution, model, machine, wrong)
    yield from wrong
    if resolution is None:
        return
    for note in resolution.notes:
        yield (warning if note.level == "warning" else ok)("setting", note.text)
    yield from _threads(resolution, machine)
    yield from machines.files(resolution["max_concurrent_requests"])
    yield from machines.shared_memory(resolution["num_shard"])
    yield from places.ports(resolution)
    yield from places.runtime_directory(resolution)
    yield from places.hub_cache(resolution, environ, here=model is not None)
    yield from places.collector(resolution)
    yield from models.text(model, resolution, environ)
    yield from models.adapters(resolution)
    if not found.torch:
        return
    if not any(finding.subject == "model" for finding in wrong):
        yield from models.usable(model, resolution, found)
    if isinstance(resolution["max_total_tokens"], int):
        yield from models.memory(resolution, found)


def _settings(
    given: Sequence[Given], environ: dict[str, str], wrong: list[Finding]
) -> Resolution | None:
    try:
        return resolve(given, environ)
    except StartupError as error:
        wrong.append(problem("setting", str(error)))
        return None


def _model(resolution: Resolution, environ: dict[str, str], wrong: list[Finding]) -> Model | None:
    """The model, if it is here and its files are whole."""
    try:
        model = find_downloaded(resolution, environ)
        if model is not None and not verify(model.directory).has_fast_tokenizer:
            check_sources(model.directory)
            wrong.append(
                warning("tokenizer", "There is no tokenizer.json: a start converts the tokenizer.")
            )
        return model
    except StartupError as error:
        wrong.append(problem("model", str(error)))
        return None


def _derive(
    resolution: Resolution, model: Model | None, machine: Machine, wrong: list[Finding]
) -> None:
    try:
        context = read_context(model.directory, resolution) if model else None
        derive(resolution, context, machine)
    except StartupError as error:
        wrong.append(problem("setting", str(error)))


def _threads(resolution: Resolution, machine: Machine) -> Iterator[Finding]:
    """Threads that share a core wait for each other at every layer."""
    threads = resolution["worker_threads"]
    workers = resolution["num_replicas"] * resolution["num_shard"]
    if not isinstance(threads, int):
        return
    text = (
        f"{counted(workers, 'worker')} of {counted(threads, 'thread')}"
        f" on {counted(machine.cores, 'core')}"
    )
    if threads * workers > machine.cores and resolution["device"] != "cuda" and not machine.gpus:
        yield warning(
            "threads",
            f"{text}, which is slower than as many as there are cores: lower --num-shard, "
            "--num-replicas or --worker-threads.",
        )
    else:
        yield ok("threads", f"{text}.")
