"""Rows to be sampled, each with its history, and what the sampler makes of them."""

import numpy as np
import torch

from tests.worker.driver import CPU
from worker.kernels.sampling import SEEING, SamplingKernels
from worker.parcel import Parcel
from worker.sampler import Choice, Sampled, Sampler
from worker.transfers import HostTransfers


class Case:
    """One row to be sampled, with its history."""

    def __init__(self, logits, parameters, prompt=(0,), output=(), stops=(), allowed=None):
        self.logits = torch.as_tensor(logits, dtype=torch.float32)
        self.parameters = parameters
        self.prompt, self.output, self.stops = list(prompt), list(output), list(stops)
        self.allowed = allowed
        """What its grammar allows, if it follows one."""


def choose(sampler: Sampler, logits, rows, positions, lengths, masks=None, last_ids=()) -> Choice:
    where = torch.tensor([positions, lengths])
    parcel = Parcel()
    batch = sampler.pack(rows, parcel)
    parcel.send(HostTransfers())
    return sampler.choose(logits, batch, where[0], where[1], masks, last_ids)


def sample(cases: list[Case], kernels: SamplingKernels = SEEING) -> Sampled:
    sampler = Sampler(len(cases[0].logits), CPU, kernels)
    rows = [
        sampler.admit(c.parameters, c.stops, c.prompt, c.output, guided=c.allowed is not None)
        for c in cases
    ]
    guided = [c.allowed for c in cases if c.allowed is not None]
    masks = bits(guided, -(-len(cases[0].logits) // 32)) if guided else None
    logits = torch.stack([c.logits for c in cases])
    positions = [len(c.output) for c in cases]
    lengths = [len(c.prompt + c.output) for c in cases]
    last_ids = [(c.prompt + c.output)[-1] for c in cases if c.parameters.watermark]
    choice = choose(sampler, logits, rows, positions, lengths, masks, last_ids)
    return choice.read(choice.packed)


def bits(allowed: list[set[int]], words: int) -> torch.Tensor:
    masks = np.zeros((len(allowed), words), dtype=np.uint32)
    for row, tokens in enumerate(allowed):
        for token in tokens:
            masks[row, token // 32] |= np.uint32(1 << token % 32)
    return torch.from_numpy(masks.view(np.int32))
