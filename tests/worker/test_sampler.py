"""The sampler against naive rows, statistics, and itself in other company."""

import math
import random

import msgspec
import pytest
import torch

from common.sampling import SamplingParameters
from tests.worker import naive
from tests.worker.ahead.waiting import CountedTransfers
from tests.worker.driver import CPU
from tests.worker.sampling import Case, choose, sample
from worker.kernels.sampling import SEEING, UNSEEN
from worker.parcel import Parcel
from worker.sampler import Sampler


def random_parameters(choice: random.Random, vocabulary: int) -> SamplingParameters:
    pick = choice.choice
    return SamplingParameters(
        do_sample=pick([True, True, False]),
        seed=choice.getrandbits(64),
        temperature=pick([1.0, 0.7, 1.3]),
        min_p=pick([0.0, 0.0, 0.05]),
        top_k=pick([0, 5, 20]),
        top_p=pick([1.0, 0.6, 0.9]),
        typical_p=pick([1.0, 0.8]),
        repetition_penalty=pick([1.0, 1.4]),
        frequency_penalty=pick([0.0, 0.9]),
        output_frequency_penalty=pick([0.0, 0.4]),
        output_presence_penalty=pick([0.0, 0.6, -0.5]),
        logit_bias=pick([{}, {3: 2.0, vocabulary - 1: -1.0}]),
        min_new_tokens=pick([0, 3]),
        top_n_tokens=pick([0, 0, 4]),
        watermark=pick([False, True]),
    )


def random_cases(seed: int, count: int, vocabulary: int) -> list[Case]:
    choice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    return [
        Case(
            torch.randn(vocabulary, generator=generator) * 3,
            random_parameters(choice, vocabulary),
            choice.choices(range(vocabulary), k=choice.randrange(1, 30)),
            choice.choices(range(vocabulary), k=choice.randrange(0, 8)),
            [1, 2, vocabulary + 5],
            set(choice.sample(range(vocabulary), choice.randrange(1, 40))) if n % 3 == 2 else None,
        )
        for n in range(count)
    ]


def test_who_gets_only_a_part_of_its_counts_keeps_none(monkeypatch):
    sampler = Sampler(60, CPU)

    def add(ids):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(sampler._output, "add", add)
    both = SamplingParameters(repetition_penalty=1.2, output_presence_penalty=0.1)
    with pytest.raises(torch.OutOfMemoryError):
        sampler.admit(both, [], [1, 2], [])
    assert sampler.count_rows_in_use == 0


@pytest.mark.parametrize("seed", range(6))
def test_every_processor_is_the_naive_one(seed):
    """All tokens' log-probabilities, read through ``top_n_tokens``."""
    cases = random_cases(seed, 12, 60)
    for case in cases:
        case.parameters = msgspec.structs.replace(case.parameters, top_n_tokens=60)
        case.stops = [1, 2]
    sampled = sample(cases)
    for case, token, logprob, top in zip(
        cases, sampled.ids, sampled.logprobs, sampled.tops, strict=True
    ):
        row = naive.processed(
            case.logits, case.parameters, case.prompt, case.output, case.stops, case.allowed
        )
        expected = {t: lp for t, lp in enumerate(naive.logprobs(row)) if lp > -math.inf}
        assert dict(top).keys() == expected.keys()
        assert dict(top) == pytest.approx(expected, abs=1e-4)
        assert logprob == pytest.approx(expected[token], abs=1e-4)
        assert top == sorted(top, key=lambda pair: (-pair[1], pair[0]))
        if not case.parameters.do_sample:
            assert expected[token] == pytest.approx(max(expected.values()), abs=1e-6)


@pytest.mark.parametrize("vocabulary", [60, 3000])
def test_a_row_yields_the_same_alone_and_in_company(vocabulary):
    cases = random_cases(100, 16, vocabulary)
    together = sample(cases)
    for number, case in enumerate(cases):
        alone = sample([case])
        assert alone.ids[0] == together.ids[number]
        assert alone.logprobs[0] == pytest.approx(together.logprobs[number], abs=1e-6)
        assert alone.tops[0] == together.tops[number]


def test_sparse_noise_draws_what_dense_noise_draws(monkeypatch):
    cases = [
        Case(c.logits, SamplingParameters(do_sample=True, seed=n, top_k=20))
        for n, c in enumerate(random_cases(3, 30, 2000))
    ]
    sparse = sample(cases)
    monkeypatch.setattr("worker.race._SPARSE_FACTOR", 1_000_000)
    assert sample(cases).ids == sparse.ids


@pytest.mark.parametrize("seed", range(3))
def test_what_looks_at_nothing_chooses_the_same(seed):
    cases = random_cases(40 + seed, 12, 3000)
    seen, unseen = sample(cases), sample(cases, UNSEEN)
    assert unseen.ids == seen.ids
    assert unseen.logprobs == pytest.approx(seen.logprobs, abs=1e-5)
    assert [[token for token, _ in top] for top in unseen.tops] == [
        [token for token, _ in top] for top in seen.tops
    ]


def test_the_draw_follows_the_distribution():
    """Chi-square over positions and over seeds; 9 degrees of freedom, p = 0.001 is 27.9."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, 1.5, 0.2, -1.0, -2.0, 0.9])
    probabilities = torch.softmax(logits, -1)
    draws = 4000
    for fixed in ("seed", "position"):
        sampler = Sampler(10, CPU)
        seeds = [77] * draws if fixed == "seed" else range(draws)
        positions = list(range(draws)) if fixed == "seed" else [5] * draws
        rows = [
            sampler.admit(SamplingParameters(do_sample=True, seed=seed), [], [0], [])
            for seed in seeds
        ]
        chosen = choose(sampler, logits.repeat(draws, 1), rows, positions, [1] * draws)
        counts = torch.bincount(chosen.ids, minlength=10)
        expected = probabilities * draws
        assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_plain_rows_take_the_largest_logit_and_its_logprob():
    logits = torch.randn((4, 50), generator=torch.Generator().manual_seed(0))
    sampled = sample([Case(row, SamplingParameters()) for row in logits])
    assert sampled.ids == logits.argmax(-1).tolist()
    assert sampled.logprobs == pytest.approx(torch.log_softmax(logits, -1).amax(-1).tolist())
    assert sampled.tops == [[], [], [], []]


def test_top_n_includes_ties_and_excludes_what_was_filtered():
    logits = [3.0, 1.0, 2.0, 2.0, 2.0]
    two = sample([Case(logits, SamplingParameters(top_n_tokens=2))]).tops[0]
    assert [token for token, _ in two] == [0, 2, 3, 4]
    filtered = SamplingParameters(do_sample=True, top_k=1, top_n_tokens=3)
    assert sample([Case(logits, filtered)]).tops[0] == [(0, 0.0)]
    beyond = sample([Case(logits, SamplingParameters(top_n_tokens=99))]).tops[0]
    assert [token for token, _ in beyond] == [0, 2, 3, 4, 1]


@pytest.mark.parametrize("kernels", [SEEING, UNSEEN])
def test_a_token_has_one_log_probability(kernels):
    """Its own, and that among the most likely ones; so have other tokens that are as likely."""
    for cases in (random_cases(number, 12, 3000) for number in range(4)):
        plain = [
            Case(30 + case.logits, SamplingParameters(do_sample=n % 2 == 0, seed=n, top_n_tokens=m))
            for n, case in enumerate(cases)
            for m in (1, 3000)
        ]
        for case in plain:
            case.logits[7] = case.logits.max()
        sampled = sample(plain, kernels)
        for token, logprob, top in sampled.tokens():
            assert dict(top).get(token, logprob) == logprob
            assert all(value <= 0 for _, value in top)
            assert dict(top)[7] == max(dict(top).values())


def test_rows_without_a_distribution_have_no_most_likely_tokens():
    for logits in ([-math.inf] * 3, [math.nan, 1.0, 2.0], [math.inf, 1.0, 2.0]):
        sampled = sample([Case(logits, SamplingParameters(top_n_tokens=2))])
        assert math.isnan(sampled.logprobs[0])
        assert sampled.tops == [[]]


def test_stop_tokens_wait_for_the_minimum_length():
    parameters = SamplingParameters(min_new_tokens=2)
    for output, expected in (([], 0), ([5], 0), ([5, 5], 3)):
        case = Case([1.0, 0.0, 0.0, 9.0, 0.0, 0.0], parameters, output=output, stops=[3, 99])
        assert sample([case]).ids == [expected]


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1.0])
@pytest.mark.parametrize(("repetition", "token"), [(1e-45, 1), (1e-38, 1), (3e38, 2)])
def test_no_repetition_penalty_makes_infinities(repetition, token, temperature):
    parameters = SamplingParameters(
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        repetition_penalty=repetition,
    )
    sampled = sample([Case([-30.0, 40.0, 20.0, -5.0], parameters, prompt=[0, 1])])
    assert sampled.ids == [token]
    assert sampled.logprobs == [0.0]


def test_counts_advance_with_accepted_tokens():
    parameters = SamplingParameters(
        repetition_penalty=1.3, frequency_penalty=0.7, output_frequency_penalty=0.5
    )
    sampler = Sampler(20, CPU)
    prompts = [[1, 2, 2], [3]]
    rows = [sampler.admit(parameters, [], prompt, []) for prompt in prompts]
    outputs: list[list[int]] = [[], []]
    generator = torch.Generator().manual_seed(1)
    for step in range(12):
        logits = torch.randn((2, 20), generator=generator)
        expected = [
            naive.processed(logits[n], parameters, prompts[n], outputs[n], []) for n in range(2)
        ]
        lengths = [len(prompts[n]) + step for n in range(2)]
        choice = choose(sampler, logits, rows, [step] * 2, lengths)
        sampled = choice.read(choice.packed)
        assert sampled.ids == [max(range(20), key=row.__getitem__) for row in expected]
        sampler.accept(choice)
        for output, token in zip(outputs, sampled.ids, strict=True):
            output.append(token)
    continued = sampler.admit(parameters, [], prompts[0], outputs[0])
    logits = torch.randn((1, 20), generator=generator).repeat(2, 1)
    choice = choose(sampler, logits, [rows[0], continued], [12, 12], [15, 15])
    again = choice.read(choice.packed)
    assert again.ids[0] == again.ids[1]
    assert again.logprobs[0] == again.logprobs[1]
    for row in (*rows, continued):
        sampler.release(row)
    assert sampler.count_rows_in_use == 0


@pytest.mark.parametrize("taken", [[], [4, 4]])
def test_a_branch_is_the_sequence_with_more_tokens(taken):
    """Also of one that has just come, and of one whose latest tokens are counted with it."""
    parameters = SamplingParameters(
        repetition_penalty=1.3, frequency_penalty=0.7, output_frequency_penalty=0.5, top_n_tokens=9
    )
    sampler = Sampler(9, CPU)

    def admitted(*ids):
        return sampler.admit(parameters, [], [1, 2, 2], [5, *ids])

    row = admitted()
    if taken:
        choose(sampler, torch.randn((1, 9)), [row], [1], [4])
        sampler.count(row, taken[:1])
        sampler.count(row, taken[1:])
    more = [7], [7, 7, 4]
    branches = [sampler.branch(row, ids) for ids in more]
    rows = [row, *branches, *[admitted(*taken, *ids) for ids in more]]
    logits = torch.randn(9, generator=torch.Generator().manual_seed(2)).repeat(len(rows), 1)
    choice = choose(sampler, logits, rows, [1] * len(rows), [9] * len(rows))
    tops = choice.read(choice.packed).tops
    assert tops[1:3] == tops[3:5]
    assert tops[0] != tops[1] != tops[2]
    for branch in branches:
        sampler.release(branch)
    choice = choose(sampler, torch.zeros((2, 9)), [row, admitted(*taken)], [1, 1], [9, 9])
    tops = choice.read(choice.packed).tops
    assert tops[0] == tops[1]


def test_what_there_is_no_memory_to_count_is_counted_once_later(monkeypatch):
    parameters = SamplingParameters(output_frequency_penalty=1.0)
    sampler = Sampler(4, CPU)
    row = sampler.admit(parameters, [], [0], [3])
    ones_like, left = torch.ones_like, [1]

    def short_ones(*arguments, **named):
        if left[0] == 0:
            raise torch.OutOfMemoryError("too much")
        left[0] -= 1
        return ones_like(*arguments, **named)

    monkeypatch.setattr(torch, "ones_like", short_ones)
    for allowed in (0, 1, 1, 9):  # nothing, the prompt, what was counted, all
        sampler.count(row, [2] if allowed == 0 else [])
        branch = sampler.branch(row, [1])
        left[0] = allowed
        logits = torch.zeros((2, 4))
        if allowed < 9:
            with pytest.raises(torch.OutOfMemoryError):
                choose(sampler, logits, [row, branch], [1, 2], [2, 3])
        else:
            choose(sampler, logits, [row, branch], [1, 2], [2, 3])
        sampler.release(branch)
    assert logits.tolist() == [[0.0, 0.0, -1.0, -1.0], [0.0, -1.0, -1.0, -1.0]]


def test_counts_of_a_row_that_left_before_it_was_sent_are_not_those_of_the_next():
    parameters = SamplingParameters(output_presence_penalty=50.0)
    sampler = Sampler(6, CPU)
    gone = sampler.admit(parameters, [], [0], [5, 5, 4])
    sampler.release(gone)
    row = sampler.admit(parameters, [], [0], [3])
    logits = torch.arange(6.0)[None]
    sampler.pack([row], Parcel())  # and then the launch fails
    choice = choose(sampler, logits, [row], [1], [2])
    assert choice.read(choice.packed).ids == [5]
    assert logits[0].tolist() == [0.0, 1.0, 2.0, -47.0, 4.0, 5.0]


def test_what_is_asked_for_goes_to_the_device_once():
    """All of it in one transfer, and nothing while the same rows step together."""
    transfers = CountedTransfers()
    cases = random_cases(4, 8, 60)
    sampler = Sampler(60, CPU)
    rows = [sampler.admit(c.parameters, [1], c.prompt, c.output) for c in cases]
    for together, sent in ((rows, 1), (rows, 1), (rows[1:], 2), (rows[1:], 2)):
        parcel = Parcel()
        batch = sampler.pack(together, parcel)
        parcel.send(transfers)
        assert transfers.uploads == sent
        where = torch.arange(len(together)) + 1
        last_ids = [7] * len(batch.marked)
        sampler.choose(torch.randn(len(together), 60), batch, where, where, None, last_ids)


def test_a_row_that_is_not_a_number_spoils_no_other():
    bad = [0.0] * 2000
    bad[7] = math.nan
    cases = random_cases(9, 8, 2000)
    healthy = sample(cases)
    for parameters in (
        SamplingParameters(),
        SamplingParameters(do_sample=True, seed=1),
        SamplingParameters(
            do_sample=True, temperature=0.5, min_p=0.1, top_k=3, top_p=0.5, typical_p=0.5
        ),
        SamplingParameters(repetition_penalty=2.0, top_n_tokens=3),
    ):
        mixed = sample([*cases[:4], Case(bad, parameters), *cases[4:]])
        assert math.isnan(mixed.logprobs[4])
        assert mixed.ids[:4] + mixed.ids[5:] == healthy.ids
    overflowing = sample([Case([math.inf, 0.0], SamplingParameters(do_sample=True))])
    assert math.isnan(overflowing.logprobs[0])


def test_a_tiny_temperature_is_arg_max():
    case = Case([1.0, 1.5, 0.0], SamplingParameters(do_sample=True, seed=4, temperature=1e-40))
    assert sample([case]).ids == [1]


def test_no_row_needs_no_table():
    sampler = Sampler(1000, CPU)
    sampler.admit(SamplingParameters(do_sample=True, top_p=0.5), [], [1], [])
    assert sampler.count_rows_in_use == 0
