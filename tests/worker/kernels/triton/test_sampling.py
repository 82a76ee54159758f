"""Penalties, filters and the draw in Triton: against the reference, held to the formulas."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from common.sampling import SamplingParameters
from tests.worker.naive import processed
from worker import filters as reference_filters
from worker import noise
from worker.kernels.reference import draw as reference_draw
from worker.kernels.reference import penalties as reference_penalties
from worker.kernels.reference.penalties import Penalties
from worker.kernels.triton import draw, filters, penalties

VOCABULARY = 3001
SEEDS = [0, 7, -5, 2**62, -(2**63), 2**40 + 1]
POSITIONS = [0, 1, 2, 77, 4096, 2**31]


def logits_of(rows, seed=0):
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def arguments(temperatures):
    return (
        torch.tensor(temperatures),
        torch.tensor(SEEDS[: len(temperatures)]),
        torch.tensor(POSITIONS[: len(temperatures)]),
    )


def test_the_draw_is_the_references():
    logits = logits_of(6)
    logits[1, 100:] = -torch.inf
    logits[2, :-1] = -torch.inf
    temperatures = [0.0, 1.0, 0.7, 1e-30, 30.0, 0.0]
    ids, logprobs = draw.draw(logits, *arguments(temperatures))
    wanted_ids, wanted = reference_draw.draw(logits, *arguments(temperatures))
    assert torch.equal(ids, wanted_ids)
    torch.testing.assert_close(logprobs, wanted, atol=1e-5, rtol=1e-5)
    assert ids[0] == logits[0].argmax()
    assert ids[2] == VOCABULARY - 1


@pytest.mark.parametrize("kernel", [draw, reference_draw])
def test_the_draw_is_a_race(kernel):
    """Each token's exponential noise over its probability: the smallest wins (Gumbel-max)."""
    heat = torch.tensor([1.0, 0.5, 1.5])
    keys = noise.split_seeds(torch.tensor(SEEDS[:3]))
    for position in range(4):
        logits, places = logits_of(3, seed=position), torch.full((3,), position)
        ids, logprobs = kernel.draw(logits, heat, torch.tensor(SEEDS[:3]), places)
        likely = (logits / heat[:, None]).double().log_softmax(-1)
        times = noise.exponentials(keys, places, VOCABULARY)
        assert torch.equal(ids, (times / likely.exp()).argmin(-1))
        wanted = likely.gather(1, ids[:, None])[:, 0].float()
        torch.testing.assert_close(logprobs, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the interpreter
def test_rows_without_a_distribution():
    logits = logits_of(3)
    logits[0] = -torch.inf
    logits[1, 5] = torch.nan
    ids, logprobs = draw.draw(logits, *arguments([1.0, 1.0, 1.0]))
    assert logprobs.isnan().tolist() == [True, True, False]
    assert all(0 <= token < VOCABULARY for token in ids.tolist())


def test_noise_is_that_of_the_generator():
    """Where logits are equal, the smallest noise wins: in every row another token."""
    count = 24
    positions = torch.arange(count)
    seeds = torch.full((count,), -123456789)
    ids, _ = draw.draw(torch.zeros(count, 501), torch.ones(count), seeds, positions)
    keys = noise.split_seeds(seeds)
    assert torch.equal(ids, noise.exponentials(keys, positions, 501).argmin(-1))
    assert len(set(ids.tolist())) > count // 2


# --- penalties --------------------------------------------------------------------------------

KNOWN = [([5, 6, 6, 7], [6, 9]), ([1], []), ([3] * 8, [3, 3, 4]), ([2, 2], [2])]
ASKED = [
    SamplingParameters(repetition_penalty=1.3, frequency_penalty=0.5),
    SamplingParameters(),
    SamplingParameters(output_frequency_penalty=0.7, output_presence_penalty=-0.2),
    SamplingParameters(repetition_penalty=0.8, output_presence_penalty=1.5),
]


def penalties_of():
    def column(name):
        return torch.tensor([getattr(parameters, name) for parameters in ASKED])

    def counts(lists):
        table = torch.zeros(len(lists), VOCABULARY, dtype=torch.int32)
        for row, ids in enumerate(lists):
            for token, count in Counter(ids).items():
                table[row, token] = count
        return table

    asked = Penalties(
        rows=None,
        repetition=column("repetition_penalty"),
        frequency=column("frequency_penalty"),
        output_frequency=column("output_frequency_penalty"),
        output_presence=column("output_presence_penalty"),
        seen_rows=torch.tensor([2, -1, -1, 0]),
        output_rows=torch.tensor([-1, -1, 1, 0]),
    )
    seen = counts([KNOWN[3][0] + KNOWN[3][1], [], KNOWN[0][0] + KNOWN[0][1]])
    output = counts([KNOWN[3][1], KNOWN[2][1]])
    lengths = torch.tensor([len(prompt) + len(generated) for prompt, generated in KNOWN])
    return asked, seen, output, lengths


def written_out(logits):
    return torch.tensor(
        [
            processed(row.tolist(), parameters, prompt, generated, [])
            for row, parameters, (prompt, generated) in zip(logits, ASKED, KNOWN, strict=True)
        ]
    )


@pytest.mark.parametrize("kernel", [penalties, reference_penalties])
def test_penalties_are_those_of_the_formulas(kernel):
    logits = logits_of(4)
    wanted = written_out(logits)
    kernel.penalize_(logits, *penalties_of())
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", [penalties, reference_penalties])
def test_penalties_of_some_rows(kernel):
    """Rows 3 and 0 of the four, in this order, among six: the others are not touched."""
    logits = logits_of(6)
    wanted, order = logits.clone(), torch.tensor([3, 0])
    wanted[[1, 4]] = written_out(logits[[1, 2, 3, 4]])[[0, 3]]
    asked, seen, output, lengths = penalties_of()
    columns = {
        name: getattr(asked, name).index_select(0, order)
        for name in asked.__slots__
        if isinstance(getattr(asked, name), torch.Tensor)
    }
    known = torch.ones(6, dtype=torch.int64)
    known[[4, 1]] = lengths[order]
    some = Penalties(rows=torch.tensor([4, 1]), **columns)
    kernel.penalize_(logits, some, seen, output, known)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)


def test_what_nobody_asks_for_is_left_out():
    """The reference is told on the host; the numbers are the same."""
    asked, seen, output, lengths = penalties_of()
    repeated = replace(asked, frequency=torch.zeros(4), output_rows=torch.full((4,), -1))
    logits = logits_of(4)
    wanted = logits.clone()
    reference_penalties.penalize_(wanted, repeated, seen, output, lengths)
    told = replace(repeated, frequent=False, counts_output=False)
    reference_penalties.penalize_(logits, told, seen, torch.zeros((0, VOCABULARY)), lengths)
    assert torch.equal(logits, wanted)


# --- filters ----------------------------------------------------------------------------------


def kept(filtered):
    return filtered > -torch.inf


@pytest.mark.parametrize(
    ("vocabulary", "levels"), [(7, 2), (7, 100_000), (3001, 2), (3001, 40), (5000, 100_000)]
)
@pytest.mark.parametrize("kernel", [filters.top_p, reference_filters.top_p_unseen])
def test_the_nucleus_is_the_shortest_beginning(kernel, vocabulary, levels):
    """In falling order, equal ones by id, of which there are many (as bfloat16 makes them)."""
    generator = torch.Generator().manual_seed(vocabulary + levels)
    logits = torch.randn(6, vocabulary, generator=generator) * 3
    logits = (logits * levels / 10).round() / levels * 10
    logits[4, : vocabulary // 2] = -torch.inf
    logits[5] = 0.0
    p = torch.tensor([0.001, 0.3, 0.9, 0.9999, 0.8, 0.5])
    got = kernel(logits.clone(), p)
    stays = kept(got)
    assert torch.equal(got[stays], logits[stays])
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    falling = stays.gather(1, order)
    assert torch.equal(falling, falling.cumprod(-1).bool())
    mass = logits.double().softmax(-1).gather(1, order).cumsum(-1)
    counts, margin = stays.sum(-1), 1e-5  # sums in float32 round, by processors differently
    reached = mass.gather(1, counts[:, None] - 1)[:, 0]
    before = torch.cat((torch.zeros(6, 1), mass), 1).gather(1, counts[:, None] - 1)[:, 0]
    possible = kept(logits).sum(-1)
    assert ((reached > p - margin) | (counts == possible)).all()
    assert ((before < p + margin) | (counts == 1)).all()


def test_the_nucleus_of_equal_logits_begins_with_the_first_ids():
    logits = torch.tensor([[0.0, 1.0, 1.0, -1.0, 1.0, 1.0], [0.0, -0.0, 0.0, -0.0, -5.0, -5.0]])
    got = kept(filters.top_p(logits, torch.tensor([0.35, 0.6])))
    assert got.tolist() == [[False, True, True, False, False, False], [True] * 3 + [False] * 3]


@pytest.mark.parametrize(("vocabulary", "levels"), [(7, 2), (3001, 100_000), (5000, 2)])
def test_the_k_largest_are_those_of_sorting(vocabulary, levels):
    logits = torch.randn(5, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 3
    logits = (logits * levels / 10).round() / levels * 10
    logits[3, 2:] = -torch.inf
    logits[4, 3] = -0.0
    k = torch.tensor([1, 5, vocabulary, 4, 2])
    wanted = reference_filters.top_k(logits.clone(), k, vocabulary)
    assert torch.equal(filters.top_k(logits.clone(), k, vocabulary), wanted)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the interpreter
def test_a_row_without_a_distribution_stays_without():
    logits = logits_of(3)
    logits[0] = -torch.inf
    logits[1, 5] = torch.nan
    for filtered in (
        filters.top_p(logits.clone(), torch.tensor([0.5, 0.5, 0.5])),
        filters.top_k(logits.clone(), torch.tensor([3, 3, 3]), 3),
    ):
        _, logprobs = draw.draw(filtered, *arguments([1.0, 1.0, 1.0]))
        assert logprobs.isnan().tolist() == [True, True, False]
        assert not kept(filtered[0]).any()


def test_a_mass_that_rounding_keeps_from_being_reached_keeps_all():
    logits = torch.zeros(1, 3001)
    assert kept(filters.top_p(logits, torch.tensor([2.0]))).all()
    assert filters.top_p(torch.empty(0, 5), torch.empty(0)).shape == (0, 5)
