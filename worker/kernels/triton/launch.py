"""How kernels of a decoding step follow each other: programmatic dependent launch.

A kernel of few microseconds waits long for the one before it to end and for its own start. From
Hopper on, a kernel may start while the one before still runs, prepare what does not depend on it,
and wait for it then. Each kernel that is launched so has to wait, or it would read what is not yet
written: ``follow`` is the first thing that it does with memory that changes.
"""

from collections.abc import Mapping
from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_HOPPER = (9, 0)
LINE_BYTES = 128
"""What a prefetch asks for."""


def may_overlap(device: torch.device) -> bool:
    """Whether a kernel there may start before the one before it has ended."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= _HOPPER


@cache
def early(device: torch.device) -> Mapping[str, bool]:
    """What a kernel that begins with ``follow`` is launched with there."""
    return {"EARLY": True, "launch_pdl": True} if may_overlap(device) else {"EARLY": False}


@triton.jit
def follow(EARLY: tl.constexpr):
    """Waits until all kernels before this one are done, and lets the next one start."""
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def prefetch(lines):
    """Asks for cache lines, given as pointers, that no kernel writes; before ``follow``.

    They come to the device's second cache.
    """
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [lines.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
