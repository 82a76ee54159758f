"""Every declaration against transformers: logits, chunks, batches, generation."""

import pytest
import torch

from tests.worker.models.comparing import CPU, close, expected, load, prompt
from tests.worker.models.families import FAMILIES
from tests.worker.models.variants import VARIANTS
from tests.worker.paged import Paged
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.loading import load_model


@pytest.fixture(scope="module", params=[*VARIANTS, *FAMILIES])
def pair(request, tmp_path_factory):
    """Our model and theirs, in float32."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param in VARIANTS:
        write_tiny_llama(directory, **VARIANTS[request.param])
    else:
        write_tiny(directory, FAMILIES[request.param](), seed=2)
    return load(directory, torch.float32)


def test_a_whole_prompt(pair):
    ours, theirs = pair
    ids = prompt(75)
    paged = Paged(ours)
    close(paged.step([(paged.start(ids), 75)], rows="all"), expected(theirs, ids))


def test_chunks_at_awkward_boundaries(pair):
    ours, theirs = pair
    ids = prompt(75)
    wanted = expected(theirs, ids)
    paged = Paged(ours)
    sequence = paged.start(ids)
    for count in (1, 14, 2, 15, 16, 1, 25, 1):
        first = sequence.computed
        got = paged.step([(sequence, count)], rows="all")
        close(got, wanted[first : first + count])


def test_decoding(pair):
    ours, theirs = pair
    ids = prompt(50)
    wanted = expected(theirs, ids)
    paged = Paged(ours)
    sequence = paged.start(ids)
    close(paged.step([(sequence, 13)]), wanted[12:13])
    for position in range(13, 50):
        close(paged.step([(sequence, 1)]), wanted[position : position + 1])


def test_a_mixed_batch_over_scattered_blocks(pair):
    ours, theirs = pair
    paged = Paged(ours, blocks=100)
    lengths = (150, 2, 17, 33, 16, 90, 40, 60)
    all_ids = [prompt(length, seed) for seed, length in enumerate(lengths)]
    wanted = [expected(theirs, ids) for ids in all_ids]
    sequences = [paged.start(ids) for ids in all_ids]
    # Of each: everything but the last token; then all but three decode, one starts anew.
    for sequence, length in zip(sequences, lengths, strict=True):
        paged.step([(sequence, min(length - 1, 20))])
        if length > 21:
            paged.step([(sequence, length - 21)])
    again = paged.start(all_ids[2])
    parts = [*((sequence, 1) for sequence in sequences), (again, 11)]
    got = paged.step(parts)
    for row, logits in zip(got, wanted, strict=False):
        close(row, logits[-1])
    close(got[-1], wanted[2][10])
    got = paged.step([(again, 3)])
    close(got[0], wanted[2][13])


def test_generation_is_theirs(pair):
    ours, theirs = pair
    ids = prompt(21)
    generated = Paged(ours).generate(ids, 40)
    assert generated == greedy(theirs, ids, generated)
    assert Paged(ours, seed=1).generate(ids, 40, chunk=9) == generated


def greedy(theirs, ids, generated):
    """What they take at each place: if it is what was taken there, all of it is what they take."""
    return expected(theirs, ids + generated)[len(ids) - 1 : -1].argmax(-1).tolist()


def test_generation_in_a_batch_is_theirs(pair):
    ours, theirs = pair
    prompts = [prompt(length, seed=length) for length in (5, 16, 31, 100)]
    paged = Paged(ours)
    sequences = [paged.start(ids) for ids in prompts]
    logits = paged.step([(sequence, len(sequence.ids)) for sequence in sequences])
    for _ in range(24):
        for sequence, row in zip(sequences, logits, strict=True):
            sequence.ids.append(int(row.argmax()))
        logits = paged.step([(sequence, 1) for sequence in sequences])
    for sequence, ids in zip(sequences, prompts, strict=True):
        generated = sequence.ids[len(ids) :]
        assert generated == greedy(theirs, ids, generated)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_near(name, tmp_path):
    """Of a checkpoint in bfloat16; both models round, so only far off would be wrong."""
    write_tiny(tmp_path, FAMILIES[name](), seed=2, dtype=torch.bfloat16)
    _, theirs = load(tmp_path, torch.float32)
    ours = load_model(str(tmp_path), device=CPU, dtype=torch.bfloat16)
    assert ours.configuration.dtype == torch.bfloat16
    ids = prompt(60)
    wanted = expected(theirs, ids)
    paged = Paged(ours)
    sequence = paged.start(ids)
    got = [paged.step([(sequence, count)], rows="all") for count in (30, 29, 1)]
    difference = (torch.cat(got) - wanted).square().mean().sqrt()
    assert difference < 0.1 * wanted.std()
