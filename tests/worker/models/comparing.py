"""Our model beside transformers' own: what the tests of all families compare."""

import random

import torch
from transformers import AutoModelForCausalLM

from tests.worker.tiny import VOCABULARY
from worker.loading import load_model

CPU = torch.device("cpu")
TOLERANCE = 1e-4


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
