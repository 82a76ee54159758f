"""Kernels that do the same, beside each other: which of them wins where.

Each attention that this machine has, over steps as they come, storing of keys and values included;
linear layers of few rows, in our kernel and in torch's operator; and the experts of a layer,
together and one by one. Beside them the floor: reading
keys, values or weights once, or the operations of a chunk, at the device's own rates. What is read
is not in the device's caches.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bench.gpu.ceilings import seconds
from bench.gpu.shapes import BYTES, Shape
from common.errors import StartupError
from common.messages import BLOCK_TOKENS
from worker.inputs import StepInputs
from worker.kernels.attention import GPU_ATTENTION, AttentionKernel
from worker.kernels.mixture import Expert, Routing
from worker.kernels.reference.attention import AttentionShape, PagedAttention
from worker.kernels.reference.mixture import OneByOne
from worker.kernels.select import Kernels, select
from worker.transfers import transfers_of

FLOOR = "floor"
_WARM_UP_MS, _REPEATED_MS = 5, 30
_CACHES_BYTES = 256 << 20
"""More than any device's caches hold."""
_TOKENS = (1, 8, 32, 256, 2048)
"""Of a layer of experts."""


@dataclass(frozen=True, slots=True)
class Step:
    """Sequences of one step: so many tokens known before, so many computed, of each."""

    known: tuple[int, ...]
    computed: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """After the step."""
        return tuple(known + self.computed for known in self.known)


def steps(shorter: int = 1) -> dict[str, Step]:
    """By name; ``shorter``: lengths are divided by it."""
    named = {
        f"{count} decode at {context}": Step((context // shorter,) * count, 1)
        for count, context in ((1, 640), (32, 640), (256, 640), (1, 16_384), (32, 4096))
    }
    return named | {
        "a prompt of 512": Step((0,), 512 // shorter),
        "a prompt of 2,048": Step((0,), 2048 // shorter),
        "512 tokens behind 3,584": Step((3584 // shorter,), 512 // shorter),
        "8 prompts of 512": Step((0,) * 8, 512 // shorter),
    }


def inputs_of(step: Step, device: torch.device) -> tuple[StepInputs, int]:
    """A step over blocks in no order, and how many blocks there are."""
    widths = [-(-length // BLOCK_TOKENS) for length in step.lengths]
    blocks = 1 + sum(widths)
    free = list(range(1, blocks))
    random.Random(0).shuffle(free)
    tables = torch.zeros((len(widths), max(widths)), dtype=torch.int64)
    for row, width in enumerate(widths):
        tables[row, :width] = torch.tensor(free[:width])
        del free[:width]
    positions = torch.cat([torch.arange(known, known + step.computed) for known in step.known])
    rows = torch.arange(len(widths)).repeat_interleave(step.computed)
    slots = tables[rows, positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS
    inputs = StepInputs(
        token_ids=torch.zeros_like(positions, device=device),
        positions=positions.to(device),
        slots=slots.to(device),
        block_tables=tables.to(device),
        lengths=torch.tensor(step.lengths, device=device),
        lengths_host=step.lengths,
        query_lengths_host=(step.computed,) * len(widths),
        decode_sequences=len(widths) if step.computed == 1 else 0,
        logit_rows=torch.tensor([0], device=device),
    )
    return inputs, blocks


def attentions(
    shape: AttentionShape, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, AttentionKernel], dict[str, str]]:
    """Those that are there, by name, and why others are not."""
    if device.type != "cuda":
        return {"reference": PagedAttention(shape, device=device, dtype=dtype)}, {}
    found: dict[str, AttentionKernel] = {}
    missing: dict[str, str] = {}
    for name, make in GPU_ATTENTION.items():
        try:
            kernel = make(device, dtype, dtype)(shape)
        except StartupError as error:
            missing[name] = str(error)
            continue
        if kernel is not None:
            found[name] = kernel
    return found, missing


def attention(shape: Shape, device: torch.device, bytes_s: float, operations_s: float) -> Any:
    """Milliseconds of each attention and step, of one layer; and what is not there."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    heads = AttentionShape(shape.heads, shape.kv_heads, shape.head_dim, shape.head_dim**-0.5)
    found, missing = attentions(heads, device, dtype)
    taken: dict[str, dict[str, float]] = {}
    for name, step in steps(1 if device.type == "cuda" else 64).items():
        inputs, blocks = inputs_of(step, device)
        size = (2, blocks, shape.kv_heads, BLOCK_TOKENS, shape.head_dim)
        cache = torch.randn(size, device=device).to(dtype)
        row = shape.heads + 2 * shape.kv_heads
        qkv = torch.randn((len(inputs.slots), row, shape.head_dim), device=device).to(dtype)
        taken[name] = {FLOOR: 1e3 * _floor_s(step, shape, bytes_s, operations_s)}
        for kernel_name, kernel in found.items():
            (plan,) = kernel.plans(inputs, blocks, (None,))
            taken[name][kernel_name] = _ms(partial(kernel.attend, qkv, cache, plan), device)
    return {"attention_ms": taken, "attention_missing": missing}


def _floor_s(step: Step, shape: Shape, bytes_s: float, operations_s: float) -> float:
    """Of one layer."""
    read_s = sum(step.lengths) * shape.kv_bytes / shape.layers / bytes_s
    pairs = sum(
        step.computed * known + step.computed * (step.computed + 1) / 2 for known in step.known
    )
    return max(read_s, 4.0 * pairs * shape.heads * shape.head_dim / operations_s)


def linear(shape: Shape, device: torch.device, bytes_s: float) -> Any:
    """Milliseconds of the model's linear layers by rows, ours and torch's; nothing off a GPU.

    Several layers follow each other, so that none finds its weights in the device's caches.
    """
    if device.type != "cuda":
        return {"linear_ms": {}}
    from worker.kernels.triton.linear import MEASURED, FewOrMany, Trials, in_turn_ms

    time = partial(in_turn_ms, transfers_of(device))
    trials = Trials(time)
    attended = shape.heads * shape.head_dim
    row = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    layers = {
        "queries, keys and values": (trials.pack, row, shape.hidden),
        "after attention": (trials.pack, shape.hidden, attended),
        "output": (trials.pack_wide, shape.vocabulary, shape.hidden),
    }
    if shape.experts:
        layers["router"] = (trials.pack, shape.experts, shape.hidden)
    else:
        layers["gates and ups, SiLU"] = (trials.pack_silu, 2 * shape.inner, shape.hidden)
        layers["down"] = (trials.pack, shape.hidden, shape.inner)
    taken: dict[str, dict[str, dict[str, float]]] = {}
    for name, (pack, outputs, inputs) in layers.items():
        alike: list[FewOrMany] = []
        for _ in range(1 + _CACHES_BYTES // (BYTES * outputs * inputs)):
            weight = torch.randn((outputs, inputs), device=device).mul_(inputs**-0.5)
            layer = pack(weight.to(torch.bfloat16), None)
            assert isinstance(layer, FewOrMany)
            alike.append(layer)
        taken[name] = {}
        for rows in MEASURED:
            x = torch.randn((rows, inputs), device=device).to(torch.bfloat16)
            taken[name][str(rows)] = {
                FLOOR: 1e3 * BYTES * outputs * inputs / bytes_s,
                "ours": time([partial(layer.few, x) for layer in alike]),
                "torch": time([partial(layer.many, x) for layer in alike]),
            }
    return {"linear_ms": taken}


def experts(shape: Shape, device: torch.device, bytes_s: float, operations_s: float) -> Any:
    """Milliseconds of the experts of one layer, together and one by one; nothing off a GPU."""
    if device.type != "cuda" or not shape.experts:
        return {"experts_ms": {}}
    kernels = select(device, torch.bfloat16)
    routing = Routing(shape.chosen, normalized=True)
    layer = [_expert(shape, kernels.of_experts()) for _ in range(shape.experts)]
    ways = {"together": kernels.mix(layer, routing), "one by one": OneByOne(layer, routing)}
    taken: dict[str, dict[str, float]] = {}
    for tokens in _TOKENS:
        x = torch.randn((tokens, shape.hidden), device=device).to(torch.bfloat16)
        logits = torch.randn((tokens, shape.experts), device=device).to(torch.bfloat16)
        weights = 3 * shape.hidden * shape.inner
        read_s = BYTES * shape.blocks_read(tokens) * weights / bytes_s
        computed_s = 2.0 * tokens * shape.chosen * weights / operations_s
        taken[f"{tokens} tokens"] = {FLOOR: 1e3 * max(read_s, computed_s)} | {
            name: _ms(partial(mix, x, logits), device) for name, mix in ways.items()
        }
    return {"experts_ms": taken}


def _expert(shape: Shape, kernels: Kernels) -> Expert:
    def drawn(outputs: int, inputs: int) -> torch.Tensor:
        weight = torch.randn((outputs, inputs), device=kernels.device).mul_(inputs**-0.5)
        return weight.to(kernels.dtype)

    return Expert(
        kernels.pack_gated["silu"](drawn(2 * shape.inner, shape.hidden), None),
        kernels.pack_linear(drawn(shape.hidden, shape.inner), None),
    )


def _ms(act: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        return 1e3 * seconds(act, device)
    from triton.testing import do_bench

    return float(do_bench(act, warmup=_WARM_UP_MS, rep=_REPEATED_MS, return_mode="median"))
