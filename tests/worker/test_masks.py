"""Masks as bits: applied to logits, computed by a thread, settled by whom they belong to."""

from types import SimpleNamespace

import llguidance
import numpy as np
import pytest
import torch

from tests.worker.driver import CPU
from tests.worker.grammars import regex
from tests.worker.sampling import bits
from tests.worker.tiny import write_byte_tokenizer
from worker.masks import Forbid, MaskMaker


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    write_byte_tokenizer(directory)
    return llguidance.LLTokenizer(str(directory / "tokenizer.json"), eos_token=0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("vocabulary", [7, 32, 50, 64, 1001])
def test_exactly_what_a_mask_allows_stays(vocabulary, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    generator = torch.Generator().manual_seed(vocabulary)
    wanted = torch.rand((9, vocabulary), generator=generator) < 0.3
    allowed = [set(torch.nonzero(row)[:, 0].tolist()) for row in wanted]
    logits = torch.randn((9, vocabulary), generator=generator)
    expected = logits.masked_fill(~wanted, -torch.inf)
    given = logits.to(device, copy=True)
    masks = bits(allowed, -(-vocabulary // 32) + 1).to(device)
    assert Forbid(torch.device(device))(given, masks) is given
    assert torch.equal(given.cpu(), expected)


def follower(tokenizer, pattern: str):
    return SimpleNamespace(
        matcher=llguidance.LLMatcher(tokenizer, regex(pattern)), settle=lambda allowed: None
    )


def set_bits(row: torch.Tensor) -> list[int]:
    return np.nonzero(np.unpackbits(row.numpy().view(np.uint8), bitorder="little"))[0].tolist()


def test_a_row_for_each_matcher(tokenizer):
    maker = MaskMaker(256, vocabulary=256, threads=2, device=CPU)
    masks = maker.begin([follower(tokenizer, p) for p in ("[a-c]x", "q", "[0-9]+")]).wait()
    assert masks.shape == (3, 8)
    assert [set_bits(row) for row in masks] == [[97, 98, 99], [113], list(range(48, 58))]
    maker.close()


def test_tokens_beyond_the_logits_are_not_allowed(tokenizer):
    maker = MaskMaker(256, vocabulary=99, threads=1, device=CPU)
    masks = maker.begin([follower(tokenizer, "[a-z]")]).wait()
    assert set_bits(masks[0]) == [97, 98]
    maker.close()


def test_what_goes_wrong_comes_out_where_it_is_waited_for(tokenizer):
    maker = MaskMaker(512, vocabulary=512, threads=1, device=CPU)  # wider than the tokenizer
    pending = maker.begin([follower(tokenizer, "a")])
    with pytest.raises(ValueError, match="buffer"):
        pending.wait()
    maker.close()
