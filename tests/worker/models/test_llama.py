"""The Llama declaration against transformers: logits, chunks, batches, generation."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.worker.models.variants import VARIANTS
from tests.worker.paged import Paged
from tests.worker.tiny import VOCABULARY, write_tiny_llama
from worker.loading import load_model

CPU = torch.device("cpu")
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """Our model and theirs, in float32."""
    directory = tmp_path_factory.mktemp(request.param)
    write_tiny_llama(directory, **VARIANTS[request.param])
    return load(directory, torch.float32)


def load(directory, dtype):
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    return load_model(str(directory), device=CPU, dtype=dtype), theirs


def prompt(length, seed=0):
    return random.Random(seed).choices(range(VOCABULARY), k=length)


@torch.no_grad()
def expected(theirs, ids):
    """[len(ids), vocabulary]."""
    return theirs(torch.tensor([ids])).logits[0].float()


def close(got, wanted, tolerance=TOLERANCE):
    assert got.shape == wanted.shape
    assert torch.isfinite(got).all()
    assert (got - wanted).abs().max() < tolerance


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
    theirs_ids = theirs.generate(
        torch.tensor([ids]), max_new_tokens=40, do_sample=False, pad_token_id=0
    )[0, 21:].tolist()
    assert Paged(ours).generate(ids, 40) == theirs_ids
    assert Paged(ours, seed=1).generate(ids, 40, chunk=9) == theirs_ids


def test_generation_in_a_batch_is_generation_alone(pair):
    ours, _ = pair
    prompts = [prompt(length, seed=length) for length in (5, 16, 31, 100)]
    alone = [Paged(ours).generate(ids, 24) for ids in prompts]
    paged = Paged(ours)
    sequences = [paged.start(ids) for ids in prompts]
    logits = paged.step([(sequence, len(sequence.ids)) for sequence in sequences])
    for _ in range(24):
        for sequence, row in zip(sequences, logits, strict=True):
            sequence.ids.append(int(row.argmax()))
        logits = paged.step([(sequence, 1) for sequence in sequences])
    for sequence, ids, generated in zip(sequences, prompts, alone, strict=True):
        assert sequence.ids[len(ids) :] == generated


# --- what does not depend on the variant ------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    directory = tmp_path_factory.mktemp("plain")
    write_tiny_llama(directory)
    return directory


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(plain, dtype):
    _, theirs = load(plain, torch.float32)
    ours = load_model(str(plain), device=CPU, dtype=dtype)
    assert ours.configuration.dtype == dtype
    ids = prompt(60)
    wanted = expected(theirs, ids)
    tolerance = 0.05 * wanted.abs().max()
    paged = Paged(ours)
    sequence = paged.start(ids)
    close(paged.step([(sequence, 30)], rows="all"), wanted[:30], tolerance)
    close(paged.step([(sequence, 29)], rows="all"), wanted[30:59], tolerance)
    close(paged.step([(sequence, 1)]), wanted[59:], tolerance)


def test_a_bfloat16_checkpoint_in_float32(tmp_path):
    """On a CPU its weights are kept in float16, which must not show."""
    write_tiny_llama(tmp_path, dtype=torch.bfloat16, tie_word_embeddings=True, attention_bias=True)
    ours, theirs = load(tmp_path, torch.float32)
    ids = prompt(60)
    paged = Paged(ours)
    close(paged.step([(paged.start(ids), 60)], rows="all"), expected(theirs, ids))


def test_no_logits_wanted(plain):
    ours, _ = load(plain, torch.float32)
    paged = Paged(ours)
    inputs = paged.inputs([(paged.start(prompt(5)), 5)], "last")
    inputs = type(inputs)(
        **{name: getattr(inputs, name) for name in inputs.__slots__ if name != "logit_rows"},
        logit_rows=torch.empty(0, dtype=torch.int64),
    )
    with torch.inference_mode():
        hidden = ours.forward(inputs, paged.cache)
        assert hidden.shape == (0, 64)
        assert ours.logits(hidden).shape == (0, VOCABULARY)


def test_a_dead_sequence_does_not_infect_the_next_one(plain):
    """Blocks come back full of NaN, and the next owner fills them only in part."""
    ours, theirs = load(plain, torch.float32)
    paged = Paged(ours, blocks=6)
    ids = prompt(40)
    for _ in range(3):
        sequence = paged.start(ids)
        logits = paged.step([(sequence, 37)])
        for position in range(37, 40):
            logits = paged.step([(sequence, 1)])
            close(logits, expected(theirs, ids)[position : position + 1])
        for block in sequence.blocks:
            for layer in paged.cache.layers:
                layer[:, block] = float("nan")
        paged.finish(sequence)


def test_dynamic_scaling_beyond_the_context(tmp_path):
    """Generating past max_position_embeddings is what transformers gives token by token."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    write_tiny_llama(tmp_path, max_position_embeddings=32, rope_parameters=rope)
    ours, theirs = load(tmp_path, torch.float32)
    ids = prompt(25)
    theirs_ids = theirs.generate(
        torch.tensor([ids]), max_new_tokens=60, do_sample=False, pad_token_id=0
    )[0, 25:].tolist()
    assert Paged(ours).generate(ids, 60) == theirs_ids
    # and a recomputed sequence (after preemption, say) continues as if nothing had happened
    assert Paged(ours).generate(ids + theirs_ids[:40], 20) == theirs_ids[40:]


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_scaling_asked_for_by_setting(tmp_path, kind):
    rope = {"rope_type": kind, "factor": 3.0, "rope_theta": 500.0}
    write_tiny_llama(tmp_path / "with", max_position_embeddings=32, rope_parameters=rope)
    rope = {"rope_type": "default", "rope_theta": 500.0}
    write_tiny_llama(tmp_path / "without", max_position_embeddings=32, rope_parameters=rope)
    wanted = load_model(str(tmp_path / "with"), device=CPU, dtype=torch.float32)
    ours = load_model(
        str(tmp_path / "without"),
        device=CPU,
        dtype=torch.float32,
        rope_scaling=kind,
        rope_factor=3.0,
    )
    assert ours.configuration.rotary == wanted.configuration.rotary
    ids = prompt(20)
    assert Paged(ours).generate(ids, 40) == Paged(wanted).generate(ids, 40)
