"""Engines over a tiny model on a GPU, and what they generate."""

import time
from collections.abc import Sequence
from functools import partial

import torch

from common.messages import BLOCK_TOKENS, Dispatch, NewSequence, SequenceSpec
from common.sampling import SamplingParameters
from tests.worker.tiny import write_tiny_llama
from worker.ahead.runner import AheadRunner
from worker.cache import KVCache
from worker.engine import Engine
from worker.kernels.select import select_gather, select_sampling
from worker.kernels.triton.linear import FewOrMany
from worker.layers.linear import matrices
from worker.loading import load_model
from worker.speculation.speculation import Speculation

BLOCKS = 400
PROMPTS = [[(7 * row + place) % 250 for place in range(3 + 11 * row)] for row in range(7)]


def ahead(sizes=()):
    """Makes runners that are ahead, with the kernels of a GPU."""
    gather = select_gather(torch.device("cuda"))
    return partial(AheadRunner, sequences=16, longest=256, sizes=sizes, gather=gather)


def tiny_model(directory, device: str = "cuda", dtype: torch.dtype = torch.float32):
    """A Llama of two layers."""
    write_tiny_llama(directory, seed=3)
    return load_model(str(directory), device=torch.device(device), dtype=dtype)


def make_engine(
    model,
    make_runner,
    *,
    prepared: bool = True,
    adapters: tuple[str, ...] = (),
    device: torch.device | None = None,
    speculation: Speculation | None = None,
) -> Engine:
    """On the model's device, which one of ours knows; its cache holds nothing that is a number."""
    device = device or model.decoder.tokens.weight.device
    cache = KVCache(model.configuration, BLOCKS, device, model.cache_dtype)
    for layer in cache.layers:
        layer.fill_(torch.nan)
    engine = Engine(
        model,
        cache,
        blocks=BLOCKS,
        device=device,
        clock=time.perf_counter,
        sampling=select_sampling(device),
        make_runner=make_runner,
        adapters=adapters,
        speculation=speculation,
    )
    if prepared:
        engine.prepare()
    return engine


def generated(
    engine: Engine,
    prompts,
    count: int,
    sampling: SamplingParameters | None = None,
    adapters: Sequence[str] = ("",),
) -> dict[int, list[int]]:
    """What follows each prompt; they come one after another, while others decode.

    ``adapters`` are theirs, in turn.
    """
    ids, errors = outcomes(engine, prompts, count, sampling, adapters)
    assert not any(errors.values())
    return ids


def outcomes(
    engine: Engine,
    prompts,
    count: int,
    sampling: SamplingParameters | None = None,
    adapters: Sequence[str] = ("",),
) -> tuple[dict[int, list[int]], dict[int, str]]:
    """As ``generated``, and the error of each prompt, empty if there is none."""
    sampling = sampling or SamplingParameters()
    ids: dict[int, list[int]] = {}
    errors: dict[int, str] = {}
    block, number = 1, 0
    waiting = list(enumerate(prompts))
    while waiting or engine.held:
        add = []
        if waiting:
            row, prompt = waiting.pop(0)
            blocks = -(-(len(prompt) + count) // BLOCK_TOKENS)
            adapter = adapters[row % len(adapters)]
            spec = SequenceSpec(row, prompt, count, sampling, adapter=adapter)
            add.append(NewSequence(spec, 0, [], list(range(block, block + blocks))))
            block += blocks
        number += 1
        engine.apply(Dispatch(1, number, 32, add=add))
        result = engine.step()
        for item in [] if result is None else result.items:
            ids.setdefault(item.tokens.id, []).extend(item.tokens.ids)
            errors[item.tokens.id] = item.error
    return ids, errors


def take_few_rows(model, taken: bool) -> None:
    """Linear layers of few rows in our kernel, whatever is faster here; or in none."""
    for layer in matrices(model):
        if isinstance(layer.operation, FewOrMany):
            layer.operation.taken[:] = [taken] * len(layer.operation.taken)


def forbid_waiting(engine: Engine, monkeypatch) -> None:
    """From here on it is an error if launching a step waits for the device."""
    launch = engine._runner.launch

    def watched(flight, masks):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return launch(flight, masks)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(engine._runner, "launch", watched)
