"""The filters against transformers' and against themselves on large vocabularies."""

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from worker import filters

ROWS = torch.arange(0)


def rows(seed: int, vocabulary: int, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((5, vocabulary), generator=generator) * scale


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert torch.equal(torch.isinf(ours), torch.isinf(theirs))


@pytest.mark.parametrize("p", [0.001, 0.1, 0.9, 1.0])
def test_min_p_is_transformers(p):
    logits = rows(7, 300)
    theirs = MinPLogitsWarper(p)(ROWS, logits)
    same(filters.min_p(logits.clone(), torch.full((5,), p)), theirs)


def test_min_p_keeps_ties_of_the_likeliest_and_takes_each_row_its_own():
    logits = torch.tensor([[1.0, 3.0, 3.0, -torch.inf], [4.0, 3.0, 2.0, 1.0]])
    kept = torch.isfinite(filters.min_p(logits, torch.tensor([1.0, 0.2])))
    assert kept.tolist() == [[False, True, True, False], [True, True, False, False]]


@pytest.mark.parametrize("k", [1, 2, 50, 200])
def test_top_k_is_transformers(k):
    logits = rows(1, 200)
    same(filters.top_k(logits, torch.full((5,), k), k), TopKLogitsWarper(k)(ROWS, logits))


def test_top_k_keeps_ties_and_takes_each_row_its_own():
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [4.0, 3.0, 2.0, 1.0]])
    kept = torch.isfinite(filters.top_k(logits, torch.tensor([1, 3]), 3))
    assert kept.tolist() == [[False, True, True, False], [True, True, True, False]]


@pytest.mark.parametrize("vocabulary", [50, 1500, 5000])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.05, 3.0])
def test_top_p_is_transformers(vocabulary, p, scale):
    logits = rows(2, vocabulary, scale)
    theirs = TopPLogitsWarper(p)(ROWS, logits)
    ours = filters.top_p(logits, torch.full((5,), p))
    # At the cut the two sums round differently: at most one token a row, and that of tiny mass.
    differ = torch.isinf(ours) != torch.isinf(theirs)
    assert differ.sum(-1).max() <= 1
    assert torch.softmax(logits, -1)[differ].sum() < 1e-3
    assert differ.sum() == 0 or vocabulary > 1000


def test_top_p_at_equal_probabilities_keeps_the_fewest_by_id():
    kept = torch.isfinite(filters.top_p(torch.zeros((1, 4)), torch.tensor([0.5])))
    assert kept.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("levels", [1, 3, 40, 100_000])
def test_top_p_by_its_head_is_top_p_by_sorting(levels, monkeypatch):
    """Many equal logits (as bfloat16 makes them), cuts inside and beyond the head."""
    logits = (rows(3, 6000) * levels / 10).round() / levels * 10
    p = torch.tensor([0.05, 0.3, 0.7, 0.95, 0.9999])
    monkeypatch.setattr(filters, "_HEAD_SHARE", 2)
    by_head = filters.top_p(logits, p)
    monkeypatch.setattr(filters, "_HEADS", ())
    same(by_head, filters.top_p(logits, p))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.95])
def test_typical_p_is_transformers(p):
    logits = rows(4, 300)
    same(filters.typical_p(logits, torch.full((5,), p)), TypicalLogitsWarper(p)(ROWS, logits))


@pytest.mark.parametrize("kind", ["min_p", "top_p", "typical_p"])
@pytest.mark.parametrize("vocabulary", [100, 4000])
def test_each_row_is_its_own(kind, vocabulary):
    apply = getattr(filters, kind)
    logits, p = rows(5, vocabulary), torch.tensor([0.2, 0.9, 0.5, 0.7, 0.99])
    logits[3, : vocabulary // 2] = -torch.inf
    together = apply(logits.clone(), p)
    for row in range(5):
        alone = apply(logits[row : row + 1].clone(), p[row : row + 1])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("kind", ["top_p_unseen", "typical_p"])
def test_rows_that_are_sorted_go_through_in_pieces(kind, monkeypatch):
    """Of at most so many tokens, whose results are those of all at once."""
    apply = getattr(filters, kind)
    logits, p = rows(6, 300), torch.tensor([0.2, 0.9, 0.5, 0.7, 0.99])
    whole = apply(logits, p)
    sorted_rows = []
    sort = torch.Tensor.sort

    def watched(tensor, *arguments, **options):
        sorted_rows.append(len(tensor))
        return sort(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "sort", watched)
    monkeypatch.setattr(filters, "_PIECE_TOKENS", 650)
    assert torch.equal(apply(logits, p), whole)
    assert sorted_rows == [2, 2, 1]
    monkeypatch.setattr(filters, "_PIECE_TOKENS", 299)
    assert torch.equal(apply(logits, p), whole)
    assert sorted_rows[3:] == [1] * 5
