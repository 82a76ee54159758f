"""What a class asks of its attention function: recorded once, in a short forward pass.

Runs in the worker, at start. Every call of a forward pass gets a layer of the paged cache, in their
order. The mask of a call is not looked at as a tensor, which could not show a window longer than
the pass: the rule that it is made from is asked. Raises NotPaged, with a reason, for what paged
attention cannot compute.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_FAR = 1 << 20
"""A position beyond every window."""
_WINDOW = "millrace_window"
"""Name of the attribute that a mask carries: its window. None: all tokens before are seen."""
_KNOWN = frozenset(
    [
        *("dropout", "scaling", "sliding_window", "softcap", "s_aux", "is_causal"),
        *("position_ids", "position_embeddings", "cache_position", "cache", "past_key_values"),
        *("use_cache", "return_dict"),
        *("output_attentions", "output_hidden_states", "output_router_logits"),
    ]
)
"""Arguments that are understood, or do not change what is computed."""

ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What modeling code raises where it is used as it was not meant to be."""

Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""transformers' mask functions: (batch, head, query, key) indices to whether the key is seen."""


class NotPaged(Exception):  # noqa: N818 - a verdict
    """The class cannot run over our paged cache: why, in a few words."""


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """One call of the attention function in every forward pass."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    scale: float
    window: int | None
    cap: float | None
    sinks: torch.Tensor | None
    """[heads]: a logit for each head that takes part in the softmax and brings no value."""


class Recorder:
    """Takes the place of paged attention in the recording pass; what it returns is all zeros."""

    def __init__(self) -> None:
        self.calls: list[AttentionCall] = []

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: Any,
        **options: Any,
    ) -> torch.Tensor:
        """One call: query [1, heads, T, channels]; [1, T, heads, value channels]."""
        unknown = sorted(
            name for name, value in options.items() if value is not None and name not in _KNOWN
        )
        if unknown:
            raise NotPaged(f"its attention takes {', '.join(unknown)}")
        _check_shapes(query, key, value)
        scale = options.get("scaling")
        window, masked = _window_of(mask)
        if not masked:
            window = options.get("sliding_window")
        if options.get("is_causal") is False and not masked:
            raise NotPaged("its attention is not causal")
        self.calls.append(
            AttentionCall(
                heads=query.shape[1],
                kv_heads=key.shape[1],
                key_dim=key.shape[3],
                value_dim=value.shape[3],
                scale=key.shape[3] ** -0.5 if scale is None else float(scale),
                window=window,
                cap=options.get("softcap"),
                sinks=options.get("s_aux"),
            )
        )
        return value.new_zeros((1, query.shape[2], query.shape[1], value.shape[3]))


def _check_shapes(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    tokens = query.shape[2]
    if key.shape[2] != tokens or value.shape[2] != tokens:
        raise NotPaged("its attention has keys that belong to no token")
    if key.shape[1] != value.shape[1] or query.shape[1] % key.shape[1]:
        raise NotPaged("its attention pairs heads of keys and values in a way of its own")
    if key.shape[3] != query.shape[3]:
        raise NotPaged("its queries and keys differ in width")


def _window_of(mask: Any) -> tuple[int | None, bool]:
    """The window that a mask stands for, and whether there is a mask."""
    if mask is None:
        return None, False
    if not hasattr(mask, _WINDOW):
        raise NotPaged("it works out masks of its own")
    return getattr(mask, _WINDOW), True


def describe_mask(
    q_length: int,
    kv_length: int,
    mask_function: Rule,
    device: torch.device,
    **_: Any,
) -> torch.Tensor:
    """Of transformers' mask interface: a mask that carries its window."""
    mask = torch.ones((1, 1, q_length, kv_length), dtype=torch.bool, device=device).tril_()
    setattr(mask, _WINDOW, _window_by(mask_function, device))
    return mask


def _window_by(rule: Rule, device: torch.device) -> int | None:
    windows = {_window_at(rule, position, device) for position in (_FAR, _FAR + 12_345)}
    if len(windows) != 1:
        raise NotPaged("its masks are neither causal nor a sliding window")
    return windows.pop()


def _window_at(rule: Rule, position: int, device: torch.device) -> int | None:
    """How many tokens the one at ``position`` sees, itself included; None: all."""
    zero = torch.zeros((), dtype=torch.int64, device=device)
    keys = torch.arange(position + 64, device=device)
    try:
        seen = rule(zero, zero, zero + position, keys).broadcast_to(keys.shape)
    except (RuntimeError, IndexError):
        raise NotPaged("its masks depend on more than positions") from None
    count = int(seen.sum())
    if not torch.equal(seen, (keys <= position) & (keys > position - count)):
        raise NotPaged("its masks are neither causal nor a sliding window")
    return None if count == position + 1 else count
