"""Green lists against the published rule, and what they do to rows of logits."""

from collections import Counter

import pytest
import torch
from transformers import WatermarkLogitsProcessor

from common.errors import StartupError
from common.sampling import SamplingParameters
from tests.worker.driver import CPU
from tests.worker.sampling import Case, sample
from worker.watermark import USUAL, Favour, GreenLists, Rule

LAST_IDS = [0, 1, 7, 48, 7]


def published(vocabulary: int, rule: Rule) -> WatermarkLogitsProcessor:
    """transformers' own, with the key and the scheme that detectors assume."""
    return WatermarkLogitsProcessor(vocabulary, "cpu", rule.gamma, rule.delta)


@pytest.mark.parametrize("rule", [USUAL, Rule(0.25, 3.5), Rule(0.9, 0.1)])
@pytest.mark.parametrize("vocabulary", [49, 64, 2048, 32003])
def test_logits_are_those_of_the_published_rule(vocabulary, rule):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn((len(LAST_IDS), vocabulary), generator=generator)
    prompts = torch.tensor([[3, last] for last in LAST_IDS])
    expected = published(vocabulary, rule)(prompts, logits)
    assert torch.equal(Favour(vocabulary, CPU, rule)(logits, LAST_IDS), expected)


def test_torch_shuffles_as_ever():
    """A text marked with one version of torch has to be found with the next."""
    ((word,),) = GreenLists(16, 0.5).after([7]).tolist()
    assert [token for token in range(16) if word >> token & 1] == [2, 3, 6, 8, 9, 10, 13, 15]


@pytest.mark.parametrize("gamma", [1e-9, 0.999 / 2048])
def test_a_list_of_no_tokens_marks_nothing(gamma):
    sentence = f"--watermark-gamma {gamma} favours none of the model's 2048 tokens"
    with pytest.raises(StartupError, match=sentence):
        Favour(2048, CPU, Rule(gamma, 2.0))


@pytest.mark.parametrize(("gamma", "count"), [(1 / 2048, 1), (1 - 2**-53, 2047)])
def test_one_token_makes_a_difference(gamma, count):
    words = GreenLists(2048, gamma).after([7])
    assert sum(word.bit_count() for word in words.numpy().view("uint32")[0].tolist()) == count


def shuffles(monkeypatch) -> Counter[int]:
    """How often the tokens of each vocabulary have been shuffled."""
    counted: Counter[int] = Counter()
    shuffle = torch.randperm

    def counting(number, **options):
        counted[number] += 1
        return shuffle(number, **options)

    monkeypatch.setattr("worker.watermark.torch.randperm", counting)
    return counted


def test_a_list_is_made_once(monkeypatch):
    counted = shuffles(monkeypatch)
    lists = GreenLists(100, 0.5)
    first = lists.after(LAST_IDS)
    assert torch.equal(lists.after(LAST_IDS), first)
    assert torch.equal(first[2], first[4])
    assert counted == {100: len(set(LAST_IDS))}


def test_only_so_many_lists_are_kept(monkeypatch):
    """Those used latest; the others are made again, the same."""
    counted = shuffles(monkeypatch)
    lists = GreenLists(100, 0.5, kept_bytes=3 * 16)
    first = lists.after([1, 2, 3])
    lists.after([1, 4])
    assert torch.equal(lists.after([3, 1]), first[[2, 0]])
    assert counted == {100: 4}
    assert torch.equal(lists.after([2]), first[[1]])
    assert counted == {100: 5}


def test_marked_rows_among_others():
    """All tokens' log-probabilities, read through ``top_n_tokens``."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((6, 200), generator=generator) * 3
    cases = [
        Case(row, SamplingParameters(watermark=number % 2 == 0, top_n_tokens=200), (5, number))
        for number, row in enumerate(logits)
    ]
    sampled = sample(cases)
    for number, row in enumerate(logits):
        marked = published(200, USUAL)(torch.tensor([[number]]), row[None])[0]
        expected = torch.log_softmax(row if number % 2 else marked, -1)
        assert dict(sampled.tops[number]) == pytest.approx(
            dict(enumerate(expected.tolist())), abs=1e-5
        )


def test_the_share_of_green_tokens_rises():
    """Of flat logits, to gamma e^delta / (gamma e^delta + 1 - gamma): 0.88 for the usual rule."""
    green = Favour(300, CPU, USUAL)(torch.zeros(1, 300), [9])[0] > 0
    for watermark, least, most in ((False, 0.4, 0.6), (True, 0.83, 0.93)):
        asked = [SamplingParameters(True, seed, watermark=watermark) for seed in range(500)]
        ids = sample([Case(torch.zeros(300), parameters, (9,)) for parameters in asked]).ids
        assert least < green[ids].float().mean() < most
