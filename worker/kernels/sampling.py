"""What the sampler runs on: kernels that go together, and their two sets in torch.

Runs in the worker. ``select`` replaces some of them where there are faster ones.
"""

from dataclasses import dataclass

from worker import filters
from worker.filters import TopK, TopP
from worker.kernels.reference.draw import draw
from worker.kernels.reference.penalties import Penalize, penalize_
from worker.race import Draw, SparseDraw


@dataclass(frozen=True, slots=True)
class SamplingKernels:
    """One set."""

    draw: Draw
    top_k: TopK
    top_p: TopP
    penalize: Penalize


SEEING = SamplingKernels(SparseDraw(), filters.top_k, filters.top_p, penalize_)
"""Those that look at what they have computed, to do less: for CPUs."""
UNSEEN = SamplingKernels(draw, filters.top_k, filters.top_p_unseen, penalize_)
"""Those that look at nothing: for devices that are ahead of the host."""
