"""Reference kernel: the experts of a mixture one after another, each on its tokens."""

from collections.abc import Sequence

import torch

from worker.kernels.mixture import Expert, Routing


class OneByOne:
    """As ``MixExperts``. A GPU waits for the host to read how many tokens each expert has."""

    capturable = False

    def __init__(self, experts: Sequence[Expert], routing: Routing) -> None:
        self._experts = list(experts)
        self._routing = routing

    def __call__(self, x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """As ``MixExperts.__call__``."""
        chosen = self._routing.chosen
        likely = torch.softmax(logits, dim=-1, dtype=torch.float32)
        weights, experts = likely.topk(chosen, dim=-1)  # [T, chosen]
        if self._routing.normalized:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        experts, order = experts.flatten().sort(stable=True)
        counts = experts.bincount(minlength=len(self._experts)).tolist()
        inputs = torch.split(x.index_select(0, order // chosen), counts)
        outputs = torch.cat(
            [
                expert.second(expert.first(rows))
                for expert, rows in zip(self._experts, inputs, strict=True)
                if len(rows)
            ]
            or [x]
        )
        # Back in the order of tokens, so that each is summed in the order of its own choice.
        mixed = torch.empty_like(outputs).index_copy_(0, order, outputs)
        mixed = mixed.view(-1, chosen, x.shape[1]).float().mul_(weights[:, :, None])
        return mixed.sum(dim=1).to(x.dtype)
