"""Our paged attention as transformers' attention function.

Runs in the worker. transformers calls a registered function with the calling module and the packed
queries, keys and values, and not all classes hand further arguments through. So the step's state
lives in one holder, ``Paging``, owned by the model object and reachable from each of its modules
under ``HOLDER``; it is filled for the time of a forward pass. Knows nothing of how the class works.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from transformers import AttentionInterface, AttentionMaskInterface

from worker.cache import KVCache, LayerShape
from worker.inputs import StepInputs
from worker.kernels.reference.attention import AttentionShape
from worker.kernels.select import Kernels
from worker.models.through_transformers.calls import AttentionCall, describe_mask

PAGED = "millrace_paged"
"""Registered without a mask function: transformers then makes no masks."""
RECORDED = "millrace_recorded"
"""The same attention function, with masks that say what they mean."""
HOLDER = "millrace_paging"


class AttentionKernel(Protocol):
    """Of one shape; the reference kernel documents both. A plan is for the kernel that made it."""

    @property
    def capturable(self) -> bool:
        """As ``kernels.attention.AttentionKernel.capturable``."""

    def plans(
        self, inputs: StepInputs, blocks: int, windows: tuple[int | None, ...] = ...
    ) -> Sequence[Any]:
        """What a step reads and writes, for each of the windows."""

    def attend(self, qkv: torch.Tensor, cache: torch.Tensor, step: Any) -> torch.Tensor:
        """Store, then attend."""


class Attending(Protocol):
    """What a module finds under ``HOLDER``."""

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        **options: Any,
    ) -> torch.Tensor:
        """[1, heads, T, channels] each, to [1, T, heads, value channels]."""


def register() -> None:
    """Tell transformers of both names; may be repeated."""
    AttentionInterface.register(PAGED, _attend)
    AttentionInterface.register(RECORDED, _attend)
    AttentionMaskInterface.register(RECORDED, describe_mask)


def hand_out(holder: Attending | None, model: torch.nn.Module) -> None:
    """Let every module of a model find ``holder``."""
    for module in model.modules():
        setattr(module, HOLDER, holder)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Of transformers' attention interface."""
    holder: Attending = getattr(module, HOLDER)
    return holder.attend(query, key, value, attention_mask, **options), None


class Paging:
    """The calls of a class's forward pass, each over its layer of the paged cache."""

    def __init__(self, calls: list[AttentionCall], kernels: Kernels) -> None:
        self._calls = calls
        self._dtype = kernels.dtype
        self._attentions: list[AttentionKernel] = []
        self._plan_of: list[int] = []
        self._planned: list[tuple[AttentionKernel, tuple[int | None, ...]]] = []
        self._plans: list[Any] = []
        self._cache: KVCache | None = None
        self._next = 0
        self._prepare(kernels)

    @property
    def capturable(self) -> bool:
        """As ``AttentionKernel.capturable``, of all calls."""
        return all(attention.capturable for attention in self._attentions)

    @property
    def kv_layers(self) -> tuple[LayerShape, ...]:
        """A layer of the cache for each call. Keys and values of other widths are padded."""
        return tuple(LayerShape(call.kv_heads, _width(call)) for call in self._calls)

    def begin(self, inputs: StepInputs, cache: KVCache) -> None:
        """Before a forward pass: plan the step for every kind of call."""
        self._plans = [
            plan
            for attention, windows in self._planned
            for plan in attention.plans(inputs, cache.blocks, windows)
        ]
        self._cache, self._next = cache, 0

    def end(self) -> None:
        """After it, whatever happened: the holder is empty between steps."""
        self._plans, self._cache = [], None

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        **options: Any,
    ) -> torch.Tensor:
        """As ``Attending.attend``: the next call's. RuntimeError if it is not as recorded."""
        number, self._next = self._next, self._next + 1
        if self._cache is None or number >= len(self._calls):
            raise RuntimeError("attention was called outside of a step or once too often")
        call = self._calls[number]
        scale = options.get("scaling")
        found = (query.shape[1], *key.shape[1::2], value.shape[3], scale)
        if found[:4] != (call.heads, call.kv_heads, call.key_dim, call.value_dim) or (
            scale is not None and float(scale) != call.scale
        ):
            raise RuntimeError(f"attention call {number} is not as it was recorded: {found}")
        packed = [_packed(part, _width(call)) for part in (query, key, value)]
        attended = self._attentions[number].attend(
            torch.cat(packed, dim=1).to(self._dtype),
            self._cache.layers[number],
            self._plans[self._plan_of[number]],
        )
        rows = attended.view(1, -1, call.heads, _width(call))[..., : call.value_dim]
        return rows.to(query.dtype)

    def _prepare(self, kernels: Kernels) -> None:
        """A kernel for each kind of call, and which of its plans each call uses.

        Sinks are weights of a layer: such calls have kernels of their own, which share plans.
        """
        kinds: dict[tuple[AttentionShape, bool], list[int]] = {}
        for number, call in enumerate(self._calls):
            kinds.setdefault((_shape(call), call.sinks is not None), []).append(number)
        attentions: dict[int, AttentionKernel] = {}
        plan_of: dict[int, int] = {}
        for (shape, _), numbers in kinds.items():
            windows = tuple(dict.fromkeys(self._calls[number].window for number in numbers))
            first = sum(len(others) for _, others in self._planned)
            shared: AttentionKernel | None = None
            for number in numbers:
                call = self._calls[number]
                plan_of[number] = first + windows.index(call.window)
                if call.sinks is not None:
                    shared = attentions[number] = kernels.sink_attention(shape, call.sinks)
                else:
                    shared = attentions[number] = shared or kernels.attention(shape)
            assert shared is not None
            self._planned.append((shared, windows))
        self._attentions = [attentions[number] for number in range(len(self._calls))]
        self._plan_of = [plan_of[number] for number in range(len(self._calls))]


def _shape(call: AttentionCall) -> AttentionShape:
    return AttentionShape(call.heads, call.kv_heads, _width(call), call.scale, call.cap)


def _width(call: AttentionCall) -> int:
    return max(call.key_dim, call.value_dim)


def _packed(part: torch.Tensor, width: int) -> torch.Tensor:
    """[1, heads, T, channels] to [T, heads, width], padded with zeros."""
    rows = part[0].transpose(0, 1)
    missing = width - rows.shape[2]
    return F.pad(rows, (0, missing)) if missing else rows
