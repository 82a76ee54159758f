"""Sequences in a poisoned cache, and attention to them written out, sequence by sequence."""

import random

import torch

from worker.inputs import StepInputs
from worker.kernels.reference.attention import AttentionShape, PagedAttention

CPU = torch.device("cpu")
KV_HEADS, GROUP = 2, 3
HEADS = KV_HEADS * GROUP
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.04}


def scale_of(head_dim):
    return 2.8 * head_dim**-0.5


def written_out(queries, keys, values, prefix, window=None, cap=None):
    """[q, heads, d] against [k, kv heads, d], in float64."""
    group = queries.shape[1] // keys.shape[1]
    keys = keys.double().repeat_interleave(group, 1)
    values = values.double().repeat_interleave(group, 1)
    scores = torch.einsum("qhd,khd->hqk", queries.double(), keys)
    scores *= scale_of(queries.shape[-1])
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    distance = prefix + torch.arange(len(queries))[:, None] - torch.arange(len(keys))
    seen = (distance >= 0) & (distance < (window or len(keys)))
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values).flatten(1)


def plain(shape, dtype):
    return PagedAttention(shape, device=CPU, dtype=dtype)


class History:
    """Keys and values of sequences, in a poisoned cache and beside it."""

    def __init__(
        self, prefixes, counts, decoding, *, seed=0, window=None, cap=None, make=plain,
        heads=HEADS, kv_heads=KV_HEADS, head_dim=16, dtype=torch.float32, kv_dtype=None,
        rising=0.0,
    ):  # fmt: skip
        """``rising``: by so much of itself each key is longer than the one before.

        ``kv_dtype``: of the cache, if another.
        """
        generator = torch.Generator().manual_seed(seed)
        lengths = [prefix + count for prefix, count in zip(prefixes, counts, strict=True)]
        widths = [-(-length // 16) for length in lengths]
        self.blocks = sum(widths) + 4
        free = list(range(1, self.blocks))
        random.Random(seed).shuffle(free)
        self.tables = [[free.pop() for _ in range(width)] for width in widths]
        shape = (2, self.blocks, kv_heads, 16, head_dim)
        self.cache = torch.full(shape, float("nan"), dtype=kv_dtype or dtype)
        self.window, self.dtype = window, dtype
        self.attention = make(
            AttentionShape(heads, kv_heads, head_dim, scale_of(head_dim), cap), dtype
        )
        past, rows, wanted = [], [], []
        for prefix, count in zip(prefixes, counts, strict=True):
            whole = torch.randn(prefix + count, 2, kv_heads, head_dim, generator=generator)
            queries = torch.randn(prefix + count, heads, head_dim, generator=generator)
            whole[:, 0] *= 1 + rising * torch.arange(prefix + count)[:, None, None]
            whole, queries = whole.to(dtype), queries.to(dtype)
            both = torch.cat((queries, whole.flatten(1, 2)), 1)
            past.append(both[:prefix])
            rows.append(both[prefix:])
            keys, values = whole.to(self.cache.dtype).unbind(1)
            wanted.append(written_out(queries[prefix:], keys, values, prefix, window, cap))
        self.qkv, self.wanted = torch.cat(rows), torch.cat(wanted)
        self.inputs = self.step(prefixes, counts, decoding)
        if any(prefixes):  # what is cached is what an earlier step has written
            earlier = self.step([0] * len(prefixes), prefixes, 0)
            (plan,) = self.attention.plans(earlier, self.blocks)
            self.attention.attend(torch.cat(past), self.cache, plan)

    def step(self, prefixes, counts, decoding):
        some = [number for number, count in enumerate(counts) if count]
        ranges = [(n, range(prefixes[n], prefixes[n] + counts[n])) for n in some]
        slots = [self.tables[n][p // 16] * 16 + p % 16 for n, places in ranges for p in places]
        lengths = [prefixes[n] + counts[n] for n in some]
        width = max(-(-length // 16) for length in lengths)
        tables = [self.tables[n][:width] for n in some]
        return StepInputs(
            token_ids=torch.zeros(len(slots), dtype=torch.int64),
            positions=torch.zeros(len(slots), dtype=torch.int64),
            slots=torch.tensor(slots),
            block_tables=torch.tensor([table + [0] * (width - len(table)) for table in tables]),
            lengths=torch.tensor(lengths),
            lengths_host=tuple(lengths),
            query_lengths_host=tuple(counts[n] for n in some),
            decode_sequences=decoding,
            logit_rows=torch.tensor([0]),
        )

    def check(self):
        (plan,) = self.attention.plans(self.inputs, self.blocks, (self.window,))
        got = self.attention.attend(self.qkv, self.cache, plan)
        assert got.shape == self.wanted.shape
        assert (got.double() - self.wanted).abs().max() < TOLERANCE[self.dtype]
        return plan
