"""``millrace serve``, and ``--dry-run``, which only says what would be served.

Reads top down: take the command line apart, resolve, find the model, derive, start.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher import adapters
from launcher.arguments import CommandLine, parse_arguments
from launcher.commands.flags import LOGGER, answered, settle, tell, tokenizers
from launcher.limits import check_combinations, derive, read_context
from launcher.machine import look_around
from launcher.model import Model, find, find_downloaded, make_ready, weights_of
from launcher.report import dry_run, environment_report
from launcher.resolve import Resolution
from launcher.runtime import open_runtime_directory
from launcher.start import become_supervisor, build_settings, check_ports


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """Become the server: does not return if all is well."""
    line = parse_arguments(arguments)
    if answered(line, "serve"):
        return 0
    resolution = settle(line, environ)
    if resolution["env"]:
        print(environment_report(look_around(environ), environ), flush=True)
    tell(resolution)
    if resolution["dry_run"]:
        return show(resolution, environ)
    return serve(line, resolution, environ)


def show(resolution: Resolution, environ: dict[str, str]) -> int:
    """``--dry-run``."""
    model = find_downloaded(resolution, environ)
    context = read_context(model.directory, resolution) if model else None
    derive(resolution, context, look_around(environ))
    tell(resolution)
    lines = [f"{resolution['model_id']} is not on this machine: the start would download it;"]
    lines.append("its context is not known yet and may lower the limits below")
    if model:
        weights = weights_of(model, resolution)
        lines = [
            f"directory  {model.directory}",
            f"commit     {model.sha or '-'}",
            f"weights    {weights}",
        ]
    print(dry_run(resolution, lines))
    return 0


def serve(line: CommandLine, resolution: Resolution, environ: dict[str, str]) -> int:
    """Check everything that can be checked, then become supervisord."""
    if line.secrets:
        LOGGER.warning(
            "%s on the command line can be seen by other users of this machine for a moment: "
            "better use the environment",
            line.secrets[0].flag,
        )
    check_combinations(resolution)
    check_ports(resolution)
    machine = look_around(environ)
    model = find(resolution, environ, LOGGER.info)
    weights_of(model, resolution)
    context = read_context(model.directory, resolution)
    derive(resolution, context, machine)
    tell(resolution)
    chosen = adapters.find(resolution, environ, LOGGER.info)
    runtime = open_runtime_directory(resolution["runtime_dir"])
    try:
        directory = make_ready(
            model, lambda: [tokenizers(resolution, environ), runtime.path], LOGGER.info
        )
        check_ports(resolution)
        places = str(directory), str(runtime.path), kernel_cache(environ)
        settings = build_settings(resolution, model, *places, adapters=chosen)
        LOGGER.info("starting; %s", _summary(model, resolution, runtime.path))
        become_supervisor(settings, runtime, environ)
    finally:  # only after a failure: exec leaves nothing behind
        runtime.remove()


def _summary(model: Model, resolution: Resolution, runtime: Path) -> str:
    names = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens", "num_replicas",
             "num_frontends", "worker_threads")  # fmt: skip
    values = ", ".join(f"{name} {resolution[name]}" for name in names)
    return f"model {model.model_id}, {values}, runtime directory {runtime}"


def kernel_cache(environ: Mapping[str, str]) -> str | None:
    """Where this user's compiled kernels are kept; None without a home."""
    if environ.get("XDG_CACHE_HOME"):
        return str(Path(environ["XDG_CACHE_HOME"], "millrace", "kernels").absolute())
    home = environ.get("HOME")
    return str(Path(home, ".cache", "millrace", "kernels")) if home else None
