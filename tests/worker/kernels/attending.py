"""One step of paged attention on any device, in a poisoned cache, beside float64 written out."""

import random

import torch

from worker.inputs import StepInputs
from worker.kernels.reference.attention import UNSCALED, AttentionShape

SCALE = 0.2
_LIMITS = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 6e-3}


class Attending:
    """Sequences with so many cached tokens, of which the step computes so many more."""

    def __init__(
        self, prefixes, counts, decoding, *, heads=4, kv_heads=2, head_dim=64,
        dtype=torch.float32, kv_dtype=None, window=None, cap=None, device="cpu", spare=8,
        scales=UNSCALED, sinks=None,
    ):  # fmt: skip
        """``spare``: columns that the tables are wider than the longest sequence needs."""
        self.prefixes, self.counts, self.window = prefixes, counts, window
        self.shape = AttentionShape(heads, kv_heads, head_dim, SCALE, cap)
        self.dtype, self.kv_dtype, self.scales = dtype, kv_dtype or dtype, scales
        self.sinks = sinks
        generator = torch.Generator(device).manual_seed(0)

        def noise(*size):
            return torch.randn(size, generator=generator, device=device).to(dtype)

        lengths = [prefix + count for prefix, count in zip(prefixes, counts, strict=True)]
        widths = [-(-length // 16) for length in lengths]
        self.blocks = sum(widths) + 4
        free = list(range(1, self.blocks))
        random.Random(0).shuffle(free)
        tables = [[free.pop() for _ in range(width)] for width in widths]
        columns = max(widths) + spare
        # Pads lead to a block that nobody has written.
        padded = [table + [free[0]] * (columns - len(table)) for table in tables]
        self.tables = torch.tensor(padded, device=device)
        self.cache = torch.full(
            (2, self.blocks, kv_heads, 16, head_dim), float("nan"), device=device
        ).to(self.kv_dtype)
        rows, self.wanted, slots = [], [], []
        for number, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
            places = torch.arange(length, device=device)
            slot = self.tables[number, places // 16] * 16 + places % 16
            both = noise(length, 2, kv_heads, head_dim)
            queries = noise(length - prefix, heads, head_dim)
            self.write(both[:prefix], slot[:prefix])
            rows.append(torch.cat((queries, both[prefix:].flatten(1, 2)), 1))
            slots.append(slot[prefix:])
            meant = self.stored(both).double()
            meant *= torch.tensor([scales.keys, scales.values], device=device)[:, None, None]
            self.wanted.append(self.written_out(queries, meant, prefix))
        self.qkv, self.wanted = torch.cat(rows), torch.cat(self.wanted)
        self.inputs = StepInputs(
            token_ids=torch.zeros(len(self.qkv), dtype=torch.int64, device=device),
            positions=torch.zeros(len(self.qkv), dtype=torch.int64, device=device),
            slots=torch.cat(slots),
            block_tables=self.tables,
            lengths=torch.tensor(lengths, device=device),
            lengths_host=tuple(lengths),
            query_lengths_host=tuple(counts),
            decode_sequences=decoding,
            logit_rows=torch.tensor([0], device=device),
        )

    def stored(self, both):
        """Keys and values [n, 2, kv heads, head_dim] in the type of the cache."""
        if self.scales == UNSCALED:
            return both.to(self.kv_dtype)
        scales = torch.tensor([self.scales.keys, self.scales.values], device=both.device)
        largest = torch.finfo(self.kv_dtype).max
        divided = both.float() * (1.0 / scales.double()).float()[:, None, None]
        return divided.clamp(-largest, largest).to(self.kv_dtype)

    def write(self, both, slots):
        """Keys and values [n, 2, kv heads, head_dim] into their slots."""
        rows, cache = self.stored(both), self.cache
        if self.kv_dtype.itemsize == 1:  # torch moves 8-bit floats as bytes only
            rows, cache = rows.view(torch.uint8), cache.view(torch.uint8)
        cache[:, slots // 16, :, slots % 16] = rows

    def written_out(self, queries, both, prefix):
        """[q, heads, head_dim] and [k, 2, kv heads, head_dim] float64 to [q, heads · head_dim]."""
        keys, values = both.repeat_interleave(self.shape.heads // self.shape.kv_heads, 2).unbind(1)
        scores = torch.einsum("qhd,khd->hqk", queries.double(), keys) * SCALE
        if self.shape.cap is not None:
            scores = self.shape.cap * torch.tanh(scores / self.shape.cap)
        own = prefix + torch.arange(len(queries), device=queries.device)[:, None]
        distance = own - torch.arange(len(keys), device=queries.device)
        seen = (distance >= 0) & (distance < (self.window or len(keys)))
        scores = scores.masked_fill(~seen, float("-inf"))
        if self.sinks is None:
            weights = scores.softmax(-1)
        else:
            column = self.sinks.double()[:, None, None].expand(-1, len(queries), 1)
            weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
        return torch.einsum("hqk,khd->qhd", weights, values).flatten(1)

    def check(self, attention):
        """By the kernel, over what it plans."""
        (plan,) = attention.plans(self.inputs, self.blocks, (self.window,))
        got = attention.attend(self.qkv.clone(), self.cache, plan, scales=self.scales)
        assert got.dtype == self.dtype
        assert_near(got, self.wanted)
        return got


def assert_near(got, wanted):
    """By relative norm: NaN never passes."""
    limit = _LIMITS[got.dtype]
    assert got.shape == wanted.shape
    distance = (got.double() - wanted).norm() / wanted.norm()
    assert distance < limit, float(distance)
