"""Random weights in few bits, of every kind."""

import torch

from worker.kernels.reference.quantized import Coding, Quantized


def coded(coding, outputs, inputs, group, *, offsets=False, order=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    groups = inputs // group

    def drawn(*shape):
        return torch.randn(shape, generator=generator)

    levels = None
    if coding is Coding.INTEGER:
        codes = torch.randint(-128, 128, (outputs, inputs), generator=generator).to(torch.int8)
        size = 1 / 128
    elif coding is Coding.FLOAT8:
        numbers = drawn(outputs, inputs).mul_(torch.exp2(-6 * drawn(outputs, inputs).abs()))
        codes = numbers.to(torch.float8_e4m3fn).view(torch.uint8)
        size = 1.0
    else:
        codes = torch.randint(0, 256, (outputs, inputs // 2), generator=generator).to(torch.uint8)
        levels = drawn(16)
        size = 1.0
    return Quantized(
        coding,
        codes,
        (drawn(outputs, groups).abs() + 0.5) * size * inputs**-0.5,
        drawn(outputs, groups) * inputs**-0.5 if offsets else None,
        levels,
        torch.randperm(inputs, generator=generator) if order else None,
    )
