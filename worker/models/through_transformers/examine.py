"""May a class run over our paged cache? Tried on the loaded model, before it is served.

Runs in the worker, once. Two sequences go through in pieces, packed beside each other; every row
has to be what the class's own forward gives for each sequence alone and whole. That finds what
no flag says: a convolution or a shift over neighbouring rows, a state, positions of its own.
"""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from common.errors import StartupError
from common.messages import BLOCK_TOKENS
from worker.cache import KVCache
from worker.inputs import StepInputs
from worker.models.through_transformers.calls import ERRORS, NotPaged
from worker.models.through_transformers.paged import PagedModel

_STEPS = (((0, 5),), ((0, 1), (1, 18)), ((0, 1), (1, 1)), ((0, 1), (1, 3)))
"""Per step: (sequence, tokens). The second crosses into its second block."""
LENGTHS = (8, 22)
BLOCKS = 5
"""Of a cache for both, block 0 included."""
_TOLERANCES = {torch.float32: 1e-3}
_LOW_PRECISION_TOLERANCE = 0.5
"""Of a row, relative to the spread of its logits. What is looked for is much larger."""


def check_causal(model: Any, ids: torch.Tensor, whole: torch.Tensor) -> None:
    """Raise StartupError if later tokens change what comes before: ids [T], their logits [T, …]."""
    count = len(ids) // 2
    (half,) = reference(model, [ids[:count]])
    if not _same(half, whole[:count], model.dtype):
        raise StartupError(
            f"{type(model).__name__} is not causal: its tokens see those that come after them, so"
            " it cannot generate text token after token (is_decoder of config.json may decide)"
        )


def reference(model: Any, ids: list[torch.Tensor]) -> list[torch.Tensor]:
    """Logits of each sequence ([T] each) by the class's own forward, alone and whole."""
    return [model(**alone(model, own)).logits[0].float() for own in ids]


def alone(model: Any, ids: torch.Tensor) -> dict[str, Any]:
    """The arguments of a forward pass over one whole sequence [T]: positions from 0, no cache."""
    arguments: dict[str, Any] = {"input_ids": ids[None], "use_cache": False}
    if "position_ids" in inspect.signature(model.forward).parameters:
        arguments["position_ids"] = torch.arange(len(ids), device=ids.device)[None]
    return arguments


def check_paged(
    model: PagedModel,
    ids: list[torch.Tensor],
    wanted: list[torch.Tensor],
    cache: KVCache,
    device: torch.device,
) -> None:
    """Raise NotPaged unless two packed sequences (of ``LENGTHS``) give the wanted logits.

    ``cache`` has ``BLOCKS``; it holds both sequences then.
    """
    dtype = model.configuration.dtype
    done = [0, 0]
    for parts in _STEPS:
        inputs = _inputs(parts, done, ids, device)
        try:
            found = model.logits(model.forward(inputs, cache))
        except ERRORS as error:
            raise NotPaged(f"packed sequences fail ({type(error).__name__})") from error
        expected = torch.cat([wanted[n][done[n] : done[n] + count] for n, count in parts])
        if not _same(found, expected, dtype):
            raise NotPaged("its tokens depend on their neighbours beside attention")
        for number, count in parts:
            done[number] += count


def why_not_recorded(
    model: PagedModel, ids: list[torch.Tensor], cache: KVCache, device: torch.device
) -> str:
    """Why a step in which all decode cannot be recorded on a GPU; empty if it can.

    ``cache`` is as ``check_paged`` has left it. What is launched can be recorded unless something
    of it waits for the device, as torch notices: what a class does then depends on numbers.
    """
    if not model.attention_capturable:
        return "its attention is planned on the host"
    last = [count - 1 for count in LENGTHS]
    inputs = _inputs(((0, 1), (1, 1)), last, ids, device)
    model.forward(inputs, cache)  # compiles kernels, makes tables
    try:
        with _waiting_is_an_error():
            model.forward(inputs, cache)
    except ERRORS as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        return f"its code waits for the device ({said})"
    return ""


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this may not see all of it: recording would
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _same(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> bool:
    tolerance = _TOLERANCES.get(dtype, _LOW_PRECISION_TOLERANCE)
    difference = (found - wanted).abs().amax(-1)
    spread = wanted.std(-1).clamp_min(1e-6)
    right = difference <= tolerance * spread
    if dtype == torch.float32:
        return bool(right.all())
    # A router may choose another expert for a row: in low precision a few may differ.
    return bool(right.float().mean() >= 0.75)


def _inputs(
    parts: tuple[tuple[int, int], ...],
    done: list[int],
    ids: list[torch.Tensor],
    device: torch.device,
) -> StepInputs:
    """A step over these parts; sequence n has the blocks 2 n + 1 and 2 n + 2."""
    tables = torch.tensor([[2 * number + 1, 2 * number + 2] for number, _ in parts])
    lengths = [done[number] + count for number, count in parts]
    positions = torch.cat([torch.arange(done[n], done[n] + count) for n, count in parts])
    owners = torch.repeat_interleave(
        torch.arange(len(parts)), torch.tensor([count for _, count in parts])
    )
    blocks = tables[owners, positions // BLOCK_TOKENS]
    decoding = 0
    for number, count in parts:
        if count != 1 or not done[number]:
            break
        decoding += 1
    return StepInputs(
        token_ids=torch.cat([ids[n][done[n] : done[n] + count] for n, count in parts]).to(device),
        positions=positions.to(device),
        slots=(blocks * BLOCK_TOKENS + positions % BLOCK_TOKENS).to(device),
        block_tables=tables.to(device),
        lengths=torch.tensor(lengths, device=device),
        lengths_host=tuple(lengths),
        query_lengths_host=tuple(count for _, count in parts),
        decode_sequences=decoding,
        logit_rows=torch.arange(len(positions), device=device),
    )
