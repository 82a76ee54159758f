"""Drafts on the kernels in C: as without them, token for token, in float32."""

import pytest
import torch

from tests.worker.driver import CPU
from tests.worker.speculation.exact import check_disturbed
from tests.worker.tiny import write_tiny_llama
from worker.loading import load_model


@pytest.mark.parametrize("heads", [4, 8])
def test_disturbed_in_a_busy_batch(library, tmp_path, heads):
    """Several queries of a sequence against keys and values of its blocks."""
    write_tiny_llama(
        tmp_path, seed=3, hidden_size=128, num_attention_heads=heads, num_key_value_heads=2
    )
    model = load_model(str(tmp_path), device=CPU, dtype=torch.float32, library=library)
    check_disturbed(model, 4, heads, count=8)
