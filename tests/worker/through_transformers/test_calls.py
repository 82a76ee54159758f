"""What attention calls are recorded as, and what is refused."""

import pytest
import torch
from transformers.masking_utils import (
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    sliding_window_causal_mask_function,
)

from tests.worker.driver import CPU
from worker.models.through_transformers.calls import NotPaged, Recorder, describe_mask


def mask_of(rule):
    return describe_mask(q_length=6, kv_length=6, mask_function=rule, device=CPU)


def record(mask=None, *, heads=(4, 2, 2), widths=(8, 8, 8), tokens=(6, 6), **options):
    recorder = Recorder()
    shapes = zip(heads, widths, (6, *tokens), strict=True)
    query, key, value = (torch.zeros(1, h, t, w) for h, w, t in shapes)
    assert recorder.attend(query, key, value, mask, **options).shape == (1, 6, 4, widths[2])
    return recorder.calls[0]


def test_what_a_call_is():
    sinks = torch.ones(4)
    call = record(scaling=0.5, softcap=30.0, s_aux=sinks, widths=(12, 12, 8), dropout=0.0)
    assert (call.heads, call.kv_heads, call.key_dim, call.value_dim) == (4, 2, 12, 8)
    assert (call.scale, call.cap, call.window) == (0.5, 30.0, None)
    assert call.sinks is sinks
    assert record().scale == 8**-0.5


@pytest.mark.parametrize("window", [1, 7, 4096, 262_144])
def test_a_window_is_what_the_rule_says(window):
    rule = sliding_window_causal_mask_function(window)
    assert record(mask_of(rule)).window == window
    assert record(None, sliding_window=window).window == window
    # The mask goes before the argument, which some classes give to layers without a window.
    assert record(mask_of(causal_mask_function), sliding_window=window).window is None


@pytest.mark.parametrize(
    "rule",
    [
        chunked_causal_mask_function(8, torch.zeros(1, dtype=torch.int64)),
        or_masks(causal_mask_function, lambda batch, head, query, key: key < 4 + query),
        lambda batch, head, query, key: torch.ones(9)[key] > 0,
    ],
)
def test_other_masks_are_refused(rule):
    with pytest.raises(NotPaged, match="mask"):
        mask_of(rule)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"indices": torch.zeros(1)}, "indices"),
        ({"mask": torch.ones(1, 1, 6, 6)}, "masks of its own"),
        ({"is_causal": False}, "causal"),
        ({"heads": (4, 3, 3)}, "heads"),
        ({"heads": (4, 2, 4)}, "heads"),
        ({"tokens": (7, 7)}, "no token"),
        ({"widths": (8, 12, 8)}, "width"),
    ],
)
def test_what_paged_attention_cannot_do(options, why):
    with pytest.raises(NotPaged, match=why):
        record(**options)
