"""What the tests of all families leave open: dtypes, poisoned blocks, scaling by settings."""

import pytest
import torch

from tests.worker.models.comparing import CPU, close, expected, load, prompt
from tests.worker.paged import Paged
from tests.worker.tiny import VOCABULARY, write_tiny_llama
from worker.loading import load_model


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
