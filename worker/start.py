"""From settings to an engine that is ready: load, measure, make the cache, warm up.

Runs in the worker, once. Decides how many KV blocks there are. The process is the caller's,
torch's threads are set already. Knows nothing of sockets.
"""

import gc
import logging
import time
from pathlib import Path

import torch

from common.errors import StartupError
from common.messages import BLOCK_TOKENS
from common.settings import Settings
from worker.cache import KVCache
from worker.devices import choose
from worker.engine import Engine
from worker.faults import Faults
from worker.faults import read as read_faults
from worker.guidance import Guidance, load_guidance
from worker.kernels.cpu.library import Library, load
from worker.kernels.reference.sampling import Summary, summarize
from worker.kernels.select import select_summary
from worker.loading import load_model
from worker.memory import available_bytes, blocks_for, cpu_budget_bytes
from worker.models.model import Model
from worker.warmup import warm_up

_CUDA_RESERVE_BYTES = 256 << 20
"""Left free on a GPU besides the measured activations: fragments, and the driver's own."""
_CUDA_ACTIVATION_MARGIN = 1.1
_MOST_MASK_THREADS = 8
"""For the masks of grammars: more threads would wait for each other."""

_log = logging.getLogger(__name__)


def start(settings: Settings) -> Engine:
    """An engine, warmed up. Raises StartupError with a sentence if that is impossible."""
    began = time.perf_counter()
    if settings.num_shard != 1:
        raise StartupError(
            f"this version cannot split a model over {settings.num_shard} shards:"
            " set num_shard to 1 and use num_replicas instead"
        )
    faults = read_faults(settings.debug_faults)
    if faults is not None:
        _log.warning("faults are injected (debug_faults): this worker is for tests only")
    device, dtype = choose(settings)
    library = _library(settings, device)
    model = load_model(
        settings.model_dir,
        device=device,
        dtype=dtype,
        rope_scaling=settings.rope_scaling,
        rope_factor=settings.rope_factor,
        library=library,
    )
    dtype = model.configuration.dtype
    block_bytes = model.block_bytes
    budget = 0
    if settings.max_batch_total_tokens is None:
        if device.type == "cuda":
            budget = _cuda_budget_bytes(model, settings, device)
        else:
            budget = cpu_budget_bytes(settings, available_bytes())
        together = settings.max_batch_size or settings.max_concurrent_requests
        budget -= together * model.sequence_bytes
    blocks = blocks_for(settings, block_bytes, budget)
    guidance = None
    if not settings.disable_grammar_support:
        guidance = load_guidance(
            settings.model_dir,
            vocabulary=model.configuration.vocab_size,
            threads=min(settings.worker_threads, _MOST_MASK_THREADS),
            device=device,
        )
    summarize = select_summary(device, library)
    try:
        engine = _engine(model, blocks, device, guidance, faults, summarize)
        _warm_up(engine, model, settings, device)
    except (MemoryError, torch.OutOfMemoryError):
        raise StartupError(
            f"no memory for {(blocks - 1) * BLOCK_TOKENS} tokens of keys and values beside the"
            " model: lower max_batch_total_tokens or max_batch_prefill_tokens"
        ) from None
    _log.info(
        "ready on %s in %s: %d KV tokens (%d MiB), started in %.1f s",
        device,
        str(dtype).removeprefix("torch."),
        (blocks - 1) * BLOCK_TOKENS,
        blocks * block_bytes >> 20,
        time.perf_counter() - began,
    )
    return engine


def _library(settings: Settings, device: torch.device) -> Library | None:
    """The kernels in C, compiled at first use; None on a GPU, or where they are not wanted."""
    if device.type != "cpu" or settings.disable_custom_kernels:
        return None
    kept = [] if settings.kernel_cache is None else [Path(settings.kernel_cache)]
    library = load([*kept, Path(settings.runtime_dir)])
    if library is not None:
        _log.info("C kernels for %s", library.variant.name)
    return library


def _engine(
    model: Model,
    blocks: int,
    device: torch.device,
    guidance: Guidance | None = None,
    faults: Faults | None = None,
    summarize: Summary = summarize,
) -> Engine:
    cache = KVCache(model.configuration, blocks, device, model.configuration.dtype)
    return Engine(
        model,
        cache,
        blocks=blocks,
        device=device,
        clock=time.perf_counter,
        guidance=guidance,
        faults=faults,
        summarize=summarize,
    )


def _warm_up(engine: Engine, model: Model, settings: Settings, device: torch.device) -> None:
    rows = 1
    if device.type == "cuda":  # only there does the warm-up measure the memory of sampling
        rows = settings.max_batch_size or settings.max_concurrent_requests
    longest = min(settings.max_total_tokens, model.configuration.max_position_embeddings)
    warm_up(
        engine,
        chunk_tokens=longest if model.reads_whole else settings.max_batch_prefill_tokens,
        longest_tokens=longest,
        rows=rows,
    )


def _cuda_budget_bytes(model: Model, settings: Settings, device: torch.device) -> int:
    """What is left on the GPU after the weights and the worst step: measured by running it."""
    rows = settings.max_batch_size or settings.max_concurrent_requests
    chunk_blocks = -(-settings.max_batch_prefill_tokens // BLOCK_TOKENS)
    sequences = settings.max_batch_prefill_tokens // settings.max_total_tokens + 1
    engine = _engine(model, max(chunk_blocks + sequences, rows) + 1, device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _warm_up(engine, model, settings, device)
    activations = torch.cuda.max_memory_allocated(device) - before
    del engine
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    usable = free - int(total * (1.0 - settings.cuda_memory_fraction))
    budget = usable - int(activations * _CUDA_ACTIVATION_MARGIN) - _CUDA_RESERVE_BYTES
    return budget // -(-settings.num_replicas // max(1, torch.cuda.device_count()))
