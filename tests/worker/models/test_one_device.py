"""Off the CPU every operation finds its operands where the model is: checked without a GPU.

Tensors of torch's meta device have a shape and a dtype and no values; mixing them with others is an
error, as it is on a GPU. What values decide (routing to experts, the draw) stays out.
"""

from pathlib import Path

import pytest
import torch

from tests.worker.models.families import FAMILIES
from tests.worker.models.variants import VARIANTS
from tests.worker.paged import Paged, moved
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.cache import KVCache
from worker.loading import load_model
from worker.models.model import Model

ELSEWHERE = torch.device("meta")
ROUTED = {"gpt_oss", "mixtral", "qwen3_moe", "qwen3_moe_normalized"}
"""Families whose forward pass reads values back."""


@pytest.fixture(params=[*VARIANTS, *(name for name in FAMILIES if name not in ROUTED)])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param in VARIANTS:
        write_tiny_llama(tmp_path, **VARIANTS[request.param])
    else:
        write_tiny(tmp_path, FAMILIES[request.param](), seed=2)
    return tmp_path


def run(model: Model, cache: KVCache, parts: list[tuple[int, int]]) -> torch.Tensor:
    """Logits of one step over (computed, new) tokens of fresh sequences."""
    paged = Paged(model)
    running = []
    for computed, count in parts:
        sequence = paged.start([1] * (computed + count))
        sequence.computed = computed
        running.append((sequence, count))
    inputs = moved(paged.inputs(running, "last"), ELSEWHERE)
    return model.logits(model.forward(inputs, cache))


def test_no_operation_mixes_devices(directory: Path) -> None:
    model = load_model(str(directory), device=ELSEWHERE, dtype=torch.float16)
    cache = KVCache(model.configuration, 64, ELSEWHERE, torch.float16)
    for parts in ([(0, 40)], [(40, 1), (17, 1)], [(30, 1), (0, 5), (64, 20)]):
        logits = run(model, cache, parts)
        assert logits.device.type == "meta"
        assert logits.shape == (len(parts), model.configuration.vocab_size)
