"""From settings to an engine that is ready: load, measure, make the cache, warm up.

Runs in the worker, once; in a follower, up to its part of the model. Decides how many KV blocks
there are. The process is the caller's, torch's threads are set already. Knows nothing of sockets.
"""

import gc
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.messages import BLOCK_TOKENS
from common.settings import Settings
from worker.ahead.ladder import sizes_for
from worker.ahead.runner import AheadRunner
from worker.ahead.steps import Steps
from worker.cache import KVCache, part_of
from worker.costs import Cost, MakeEngine, budget_bytes, measure
from worker.devices import choose, choose_kv_dtype, idle_build
from worker.engine import Engine
from worker.errors import NotRecordedError
from worker.faults import read as read_faults
from worker.guidance import load_guidance
from worker.kernels.cpu.library import Library, load
from worker.kernels.select import Choices, select_gather, select_sampling
from worker.loading import load_model
from worker.memory import blocks_for, no_room
from worker.models.model import Model
from worker.parallel.follower import Follower
from worker.parallel.group import Group
from worker.parallel.team import Alone, Team
from worker.runner import HostRunner, MakeRunner
from worker.sharding import Sharding
from worker.shortage import is_shortage
from worker.speculation.drafter import MakeDrafter
from worker.speculation.ngrams import NgramDrafter
from worker.speculation.speculation import MOST_ROWS, Speculation
from worker.warmup import Worst, warm_up
from worker.watermark import Rule

_MOST_MASK_THREADS = 8
"""For the masks of grammars: more threads would wait for each other."""

_log = logging.getLogger(__name__)


def start(
    settings: Settings, team: Team | None = None, make_drafter: MakeDrafter = NgramDrafter
) -> Engine:
    """An engine, warmed up, that leads ``team``. Raises StartupError with a sentence."""
    began = time.perf_counter()
    team = team or Alone()
    device, dtype = choose(settings)
    if idle := idle_build(settings, device):
        _log.warning("%s", idle)
    library = _library(settings, device)
    model = _load(settings, device, dtype, library, team.sharding)
    drafts = most_drafts(settings, model)
    if drafts:
        _log.info("speculates with up to %d tokens a step, from each sequence's own text", drafts)
    elif settings.speculate:
        _log.warning("--speculate is without effect: this model cannot take tokens back")
    speculate = partial(Speculation, drafts, make_drafter)
    make = _maker(settings, team, device, model, library, speculate)
    loaded = time.perf_counter()
    longest = _longest(settings, model)
    worst = Worst(
        tokens=longest if model.reads_whole else settings.max_batch_prefill_tokens,
        rows=_most_rows(settings, model),
        longest_tokens=longest,
        adapter=settings.adapters[0].digest if settings.adapters else "",
    )
    if _goes_ahead(device, model):
        _say_if_not_recorded(model)
    fit = partial(_fit, settings, team, device, model, make, worst)
    fitted = None
    try:
        fitted = fit()
    except NotRecordedError as error:
        if team.sharding.size > 1:  # the others go on with theirs, and would wait for this one
            raise
        model.recording_fault = str(error)
        _say_if_not_recorded(model)
    if fitted is None:
        gc.collect()  # the first engine and its cache: the error's frames hold them
    engine, cost = fitted or fit()
    _log.info(
        "ready on %s in %s: %d KV tokens (%d MiB); the largest step takes about %.1f s and %d MiB;"
        " started in %.1f s, %.1f s of it for the warm-up",
        device,
        engine.dtype,
        (engine.blocks - 1) * BLOCK_TOKENS,
        engine.blocks * _block_bytes(team, model) >> 20,
        cost.seconds,
        cost.activation_bytes >> 20,
        time.perf_counter() - began,
        time.perf_counter() - loaded,
    )
    return engine


def _fit(
    settings: Settings,
    team: Team,
    device: torch.device,
    model: Model,
    make: MakeEngine,
    worst: Worst,
) -> tuple[Engine, Cost]:
    """An engine with as many blocks as there is room for, and what the worst step costs.

    Raises StartupError, and NotRecordedError.
    """
    blocks = 0
    try:
        cost = measure(make, worst, device)
        own = budget_bytes(settings, cost.activation_bytes, device) - cost.kept_bytes
        taken = cost.activation_bytes + cost.kept_bytes  # others cannot tell the two apart
        budget = team.least(own, taken) - _together(settings) * model.sequence_bytes
        blocks = blocks_for(settings, _block_bytes(team, model), budget)
        engine = make(blocks, cost.seconds)
        if device.type == "cuda":  # whether it all fits together
            warm_up(engine, worst)
        engine.prepare()
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise no_room(blocks) from None
    return engine, cost


def _block_bytes(team: Team, model: Model) -> int:
    """What a block of this shard takes."""
    if team.sharding.size == 1:
        return model.block_bytes
    shape = part_of(model.configuration, team.sharding)
    return KVCache.bytes_per_block(shape, model.cache_dtype)


def _say_if_not_recorded(model: Model) -> None:
    if model.why_not_recorded:
        _log.warning("its steps are no CUDA graphs, which is slower: %s", model.why_not_recorded)


def _maker(
    settings: Settings,
    team: Team,
    device: torch.device,
    model: Model,
    library: Library | None,
    speculate: Callable[[], Speculation],
) -> MakeEngine:
    """Makes engines that differ in their KV caches; all shards make theirs. One lives at a time."""
    faults = read_faults(settings.debug_faults)
    if faults is not None:
        _log.warning("faults are injected (debug_faults): this worker is for tests only")
    configuration = model.configuration
    # Ahead of the host, a step's orders go to the others instead of its inputs.
    led = model if _goes_ahead(device, model) else team.lead(model)
    shape = part_of(configuration, team.sharding)
    guidance = None
    if not settings.disable_grammar_support:
        guidance = load_guidance(
            settings.model_dir,
            vocabulary=configuration.vocab_size,
            threads=min(settings.worker_threads, _MOST_MASK_THREADS),
            device=device,
        )
    sampling = select_sampling(device, library, _choices(settings))

    def make(blocks: int, longest_step_s: float = 0.0) -> Engine:
        team.make_cache(blocks)
        cache = model.make_cache(shape, blocks, device)
        return Engine(
            led,
            cache,
            blocks=blocks,
            device=device,
            clock=time.perf_counter,
            guidance=guidance,
            faults=faults,
            sampling=sampling,
            watermark=Rule(settings.watermark_gamma, settings.watermark_delta),
            make_runner=_runner(settings, team, device, model),
            longest_step_s=longest_step_s,
            speculation=speculate(),
            adapters=tuple([adapter.digest for adapter in settings.adapters]),
            memory=cache.memory,
        )

    return make


def most_drafts(settings: Settings, model: Model) -> int:
    """Of a sequence and step at most."""
    return settings.speculate if model.rolls_back else 0


def _most_rows(settings: Settings, model: Model) -> int:
    """Whose next tokens are chosen in one step at most: of sequences, and after drafts."""
    together = _together(settings)
    return together + min(together * most_drafts(settings, model), MOST_ROWS)


def _goes_ahead(device: torch.device, model: Model) -> bool:
    """Whether devices compute ahead of the host: all shards of a model decide alike."""
    return device.type != "cpu" and model.runs_ahead


def _steps(settings: Settings, device: torch.device, model: Model) -> dict[str, Any]:
    """What ``Steps`` are made with, in every shard."""
    return {
        "sequences": _together(settings),
        "longest": _longest(settings, model),
        "sizes": sizes_for(settings, _most_rows(settings, model)) if model.capturable else (),
        "gather": select_gather(device, _choices(settings)),
    }


def _runner(settings: Settings, team: Team, device: torch.device, model: Model) -> MakeRunner:
    """Who computes the steps: on a GPU ahead of the host, where nothing else depends on it."""
    if not _goes_ahead(device, model):
        return HostRunner
    return partial(AheadRunner, others=team.go_ahead(), **_steps(settings, device, model))


def _together(settings: Settings) -> int:
    """The most sequences that may run at once."""
    return settings.max_batch_size or settings.max_concurrent_requests


def _longest(settings: Settings, model: Model) -> int:
    """The most tokens that one of them may have."""
    return min(settings.max_total_tokens, model.configuration.max_position_embeddings)


def start_follower(settings: Settings, group: Group) -> Follower:
    """A shard that is ready to follow its leader. Raises StartupError."""
    device, dtype = choose(settings)
    model = _load(settings, device, dtype, _library(settings, device), group.sharding)

    def measure_budget(activation_bytes: int) -> int:
        return budget_bytes(settings, activation_bytes, device)

    make_steps = None
    if _goes_ahead(device, model):
        make_steps = partial(Steps, **_steps(settings, device, model))
    return Follower(model, group, device, measure_budget, make_steps)


def _load(
    settings: Settings,
    device: torch.device,
    dtype: torch.dtype | None,
    library: Library | None,
    sharding: Sharding,
) -> Model:
    keep_compiled(settings, device)
    return load_model(
        settings.model_dir,
        device=device,
        dtype=dtype,
        rope_scaling=settings.rope_scaling,
        rope_factor=settings.rope_factor,
        library=library,
        sharding=sharding,
        choices=_choices(settings),
        quantize=settings.quantize,
        adapters=settings.adapters,
    )


def keep_compiled(settings: Settings, device: torch.device) -> None:
    """Let Triton keep what it compiles where this worker may write, unless it is told already.

    Triton looks at this name of the environment only when it compiles.
    """
    if device.type == "cuda" and settings.kernel_cache:
        os.environ.setdefault("TRITON_CACHE_DIR", str(Path(settings.kernel_cache) / "triton"))


def _choices(settings: Settings) -> Choices:
    return Choices(
        custom=not settings.disable_custom_kernels,
        attention=settings.attention_kernel,
        kv_dtype=choose_kv_dtype(settings.kv_cache_dtype),
    )


def _library(settings: Settings, device: torch.device) -> Library | None:
    """The kernels in C, compiled at first use; None on a GPU, or where they are not wanted."""
    if device.type != "cpu" or settings.disable_custom_kernels:
        return None
    places = [Path(place) for place in (settings.kernel_cache, settings.runtime_dir) if place]
    library = load(places)
    if library is not None:
        _log.info("C kernels for %s", library.variant.name)
    return library
