"""A whole stack in one call of C with weights that are codes, some or all of them."""

import pytest
import torch

from tests.worker.kernels.stacks import CONFIG, long_prompts, run, threads
from worker.kernels.select import select
from worker.models.configuration import parse
from worker.models.llama import LlamaForCausalLM
from worker.quantization.at_load import to_float8, to_integers, to_nf4


def model_of(library, encodes, dtype=torch.bfloat16, **changes):
    """A random model; every weight from one generator, and coded by the encoders in turn."""
    configuration = parse({**CONFIG, **changes}, dtype=dtype)
    model = LlamaForCausalLM(configuration, select(torch.device("cpu"), dtype, library))
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for number, slot in enumerate(model.slots()):
            scale = 1.0 if len(slot.shape) == 1 else slot.shape[-1] ** -0.5
            weight = torch.randn(slot.shape, generator=generator) * scale
            encode = encodes[number % len(encodes)]
            slot.fill(encode(weight) if slot.takes_codes else weight)
    model.finish()
    return model


def as_it_is(weight):
    return weight


@pytest.mark.parametrize("encodes", [[to_integers], [to_nf4], [to_float8, as_it_is, to_integers]])
def test_equals_the_layers_one_by_one(library, dtype, encodes):
    model = model_of(library, encodes, dtype, attention_bias=True)
    assert model.decoder._fused is not None
    together = run(model)
    model.decoder._fused = None
    assert torch.equal(run(model), together)


@pytest.mark.parametrize(("encode", "tolerance"), [(to_integers, 0.0), (to_nf4, 0.02)])
def test_threads_that_work_apart(library, dtype, encode, tolerance):
    """Codes with a scale for each group are rounded with it for many rows, not for few."""
    model = model_of(library, [encode], dtype, max_position_embeddings=2048)
    with threads(2):
        together = long_prompts(model)
        model.decoder._fused = None
        alone = long_prompts(model)
    assert (alone - together).abs().max() <= tolerance * alone.abs().max()


def test_close_to_what_the_reference_computes(bfloat16):
    """The same codes in float32, without C."""
    model = model_of(bfloat16, [to_integers])
    plain = LlamaForCausalLM(
        parse(CONFIG, dtype=torch.float32), select(torch.device("cpu"), torch.float32)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for slot in plain.slots():
            scale = 1.0 if len(slot.shape) == 1 else slot.shape[-1] ** -0.5
            weight = torch.randn(slot.shape, generator=generator) * scale
            slot.fill(to_integers(weight) if slot.takes_codes else weight)
    plain.finish()
    wanted = run(plain)
    assert (run(model) - wanted).abs().max() < 0.05 * wanted.abs().max()
