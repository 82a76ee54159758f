"""Paged attention with sinks against attention written out: in chunks, then token by token."""

import pytest
import torch

from worker.inputs import StepInputs
from worker.kernels.reference.attention import AttentionShape
from worker.kernels.reference.sinks import SinkAttention

CPU = torch.device("cpu")
HEADS, KV_HEADS, HEAD_DIM, TOKENS, SCALE = 6, 2, 8, 300, 0.7
TABLE = torch.randperm(20, generator=torch.Generator().manual_seed(1)) + 1


def inputs_of(start: int, end: int) -> StepInputs:
    positions = torch.arange(start, end)
    return StepInputs(
        token_ids=positions,
        positions=positions,
        slots=TABLE[positions // 16] * 16 + positions % 16,
        block_tables=TABLE[None],
        lengths=torch.tensor([end]),
        lengths_host=(end,),
        query_lengths_host=(end - start,),
        decode_sequences=int(start > 0 and end - start == 1),
        logit_rows=positions,
    )


@pytest.mark.parametrize("window", [None, 21])
def test_against_attention_written_out(window):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(TOKENS, HEADS + 2 * KV_HEADS, HEAD_DIM, generator=generator)
    sinks = torch.randn(HEADS, generator=generator)
    attention = SinkAttention(
        AttentionShape(HEADS, KV_HEADS, HEAD_DIM, SCALE), sinks, device=CPU, dtype=torch.float32
    )
    cache = torch.full((2, 22, KV_HEADS, 16, HEAD_DIM), float("nan"))
    found = []
    for start, end in [(0, 270), (270, 298), (298, 299), (299, 300)]:
        (plan,) = attention.plans(inputs_of(start, end), 22, (window,))
        found.append(attention.attend(qkv[start:end].clone(), cache, plan))
    queries, keys, values = qkv.double().split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    keys, values = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * SCALE
    distance = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
    seen = (distance >= 0) & (distance < (window or TOKENS))
    scores = scores.masked_fill(~seen, float("-inf"))
    column = sinks.double()[:, None, None].expand(-1, TOKENS, 1)
    weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
    wanted = torch.einsum("hqk,khd->qhd", weights, values).flatten(1)
    torch.testing.assert_close(torch.cat(found).double(), wanted, atol=1e-5, rtol=1e-4)


def test_sinks_and_a_cap():
    shape = AttentionShape(HEADS, KV_HEADS, HEAD_DIM, SCALE, cap=5.0)
    with pytest.raises(ValueError, match="cap"):
        SinkAttention(shape, torch.zeros(HEADS), device=CPU, dtype=torch.float32)
