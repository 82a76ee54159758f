"""The generator against its published vectors; the noise as a pure function of its key."""

import numpy as np
import pytest
import torch

from worker.noise import exponentials, exponentials_at, philox, split_seeds

CPU = torch.device("cpu")


def words(*values: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor([value]) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # kat_vectors of Random123, philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, expected):
    assert tuple(word.item() for word in philox(words(*counter), words(*key))) == expected
    arrays = [np.array([value]) for value in counter], [np.array([value]) for value in key]
    assert tuple(word.item() for word in philox(*arrays)) == expected


def test_broadcasting_agrees_with_one_counter_at_a_time():
    lanes = torch.arange(5)[None, :]
    positions = torch.tensor([0, 3, 2**31])[:, None]
    zero = torch.zeros((1, 1), dtype=torch.int64)
    keys = split_seeds(torch.tensor([1, -1, -(2**63)]))
    together = philox((lanes, positions, zero, zero), (keys[0][:, None], keys[1][:, None]))
    for row in range(3):
        for lane in range(5):
            alone = philox(words(lane, int(positions[row, 0]), 0, 0), (keys[0][row], keys[1][row]))
            assert [w.item() for w in alone] == [w[row, lane].item() for w in together]


def test_a_row_does_not_depend_on_the_others():
    keys = split_seeds(torch.tensor([7, 8, 9]))
    positions = torch.tensor([0, 5, 11])
    together = exponentials(keys, positions, 1003)
    for row in range(3):
        only = slice(row, row + 1)
        alone = exponentials((keys[0][only], keys[1][only]), positions[only], 1003)
        assert torch.equal(alone[0], together[row])


def test_a_smaller_vocabulary_is_a_prefix_of_a_larger():
    keys, positions = split_seeds(torch.tensor([3])), torch.tensor([4])
    large = exponentials(keys, positions, 300_001)
    assert torch.equal(exponentials(keys, positions, 997), large[:, :997])


def test_chosen_tokens_have_the_noise_of_the_whole_row():
    keys = split_seeds(torch.tensor([5, 6]))
    positions = torch.tensor([2, 9])
    whole = exponentials(keys, positions, 1001)
    rows = torch.tensor([0, 0, 0, 1, 1])
    tokens = torch.tensor([0, 3, 1000, 17, 998])
    chosen = exponentials_at((keys[0][rows], keys[1][rows]), positions[rows], tokens)
    assert torch.equal(chosen, whole[rows, tokens])
    empty = torch.zeros(0, dtype=torch.int64)
    assert len(exponentials_at((empty, empty), empty, empty)) == 0


def test_the_noise_is_exponential():
    times = exponentials(split_seeds(torch.tensor([1, 2])), torch.tensor([0, 1]), 100_000)
    assert torch.isfinite(times).all()
    assert (times > 0).all()
    for threshold in (0.01, 0.1, 1.0, 3.0):
        share = (times < threshold).double().mean().item()
        assert share == pytest.approx(1 - torch.tensor(-threshold).exp().item(), abs=4e-3)
    assert torch.corrcoef(times).abs()[0, 1] < 0.02
