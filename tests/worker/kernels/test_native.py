"""The kernels in C but attention: compiled, kept, and compared with the reference."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.worker.kernels.stacks import threads as so_many_threads
from worker.kernels.cpu import library as native
from worker.kernels.cpu import linear, pointwise
from worker.kernels.cpu.library import ELEMENTS
from worker.kernels.reference import norm, sampling
from worker.kernels.reference.activation import (
    ACTIVATIONS,
    GATED_ACTIVATIONS,
    silu_and_multiply,
)

FLOAT = torch.float32
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


def numbers(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative_error(got, wanted):
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


# --- the library ------------------------------------------------------------------------------


def test_is_compiled_once_and_kept(library, tmp_path, monkeypatch):
    flags = library.variant.needs
    name = native._file_name(library.variant)
    made = []
    monkeypatch.setattr(native, "compile_to", lambda path, _: made.append(path))
    shutil.copy(library.path, tmp_path / name)
    assert native.load([tmp_path], cpu_flags=flags) is not None
    assert made == []
    native.load([tmp_path / "other"], cpu_flags=flags)
    assert made == [tmp_path / "other" / name]


def test_what_another_worker_compiles_is_waited_for(library, tmp_path, monkeypatch):
    flags = library.variant.needs
    made = []
    monkeypatch.setattr(native, "compile_to", lambda path, _: made.append(path))
    with ThreadPoolExecutor(1) as pool:
        with native.alone(tmp_path):
            found = pool.submit(native.load, [tmp_path], cpu_flags=flags)
            shutil.copy(library.path, tmp_path / native._file_name(library.variant))
        assert found.result() is not None
    assert made == []


def test_without_a_compiler_there_are_none(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(native, "_COMPILERS", ("no-such-compiler",))
    with caplog.at_level("INFO"):
        assert native.load([tmp_path], cpu_flags=native.VARIANTS[-1].needs) is None
    assert "there is no C compiler" in caplog.text


def test_a_compiler_that_is_killed(monkeypatch, tmp_path, caplog):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\nkill -9 $$\n")
    compiler.chmod(0o700)
    monkeypatch.setattr(native, "_COMPILERS", (str(compiler),))
    with caplog.at_level("INFO"):
        assert native.load([tmp_path / "kept"], cpu_flags=native.VARIANTS[-1].needs) is None
    assert "SIGKILL" in caplog.text
    assert list((tmp_path / "kept").iterdir()) == []


def test_unknown_processors_run_on_torch(tmp_path):
    assert native.load([tmp_path], cpu_flags=frozenset({"neon"})) is None
    assert list(tmp_path.iterdir()) == []


def test_the_next_directory_where_the_first_cannot_be_used(library, tmp_path, caplog):
    name = native._file_name(library.variant)
    taken, open_, good = tmp_path / "file", tmp_path / "open", tmp_path / "good"
    taken.write_text("")
    for directory in (open_, good):
        directory.mkdir()
        shutil.copy(library.path, directory / name)
    open_.chmod(0o777)
    with caplog.at_level("INFO"):
        found = native.load([taken, open_, good], cpu_flags=library.variant.needs)
    assert found is not None
    assert found.path == good / name
    assert f"others may write to {open_}" in caplog.text


@pytest.mark.parametrize("harm", ["cut off", "a link"])
def test_harmed_kernels_are_compiled_again(library, tmp_path, monkeypatch, harm):
    kept = tmp_path / native._file_name(library.variant)
    if harm == "a link":
        kept.symlink_to(library.path)
    else:
        kept.write_bytes(library.path.read_bytes()[:5000])

    def compile_to(path, variant):
        assert (path, variant) == (kept, library.variant)
        path.unlink()
        shutil.copy(library.path, path)

    monkeypatch.setattr(native, "compile_to", compile_to)
    assert native.load([tmp_path], cpu_flags=library.variant.needs) is not None
    assert not kept.is_symlink()
    assert native.is_whole(kept)


# --- linear layers ----------------------------------------------------------------------------

WEIGHTS = {
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "halves": (torch.float32, torch.bfloat16),
    "singles": (torch.float32, torch.float32),
}
"""A model's dtype, and what its weights are rounded to: float16 keeps what it holds."""
ERRORS = {torch.bfloat16: 3e-3, torch.float32: 1e-6}
"""Of what is rounded to a dtype once."""


@pytest.fixture(params=WEIGHTS)
def weights(request, library):
    """Makes weights [outputs, inputs] of a model's dtype; ``weights.dtype`` is that."""
    dtype, precision = WEIGHTS[request.param]
    if ELEMENTS[dtype] not in library.variant.elements:
        pytest.skip("there is no such kernel for this processor")

    def make(*shape):
        return numbers(*shape, dtype=precision).to(dtype)

    make.dtype = dtype
    return make


@pytest.mark.parametrize("rows", [*range(1, 14), 16, 17, 31, 32, 33, 63, 97, 256, 1100])
@pytest.mark.parametrize("outputs", [7, 32, 100])
def test_linear_layers_of_every_number_of_rows(library, weights, rows, outputs):
    dtype = weights.dtype
    weight = weights(outputs, 96)
    bias = numbers(outputs, dtype=dtype, seed=1)
    x = numbers(rows, 96, dtype=dtype, seed=2)
    wanted = x.double() @ weight.double().T
    for added, values in ((None, 0.0), (bias, bias.double())):
        got = linear.pack_native(library, dtype, weight, added)(x)
        assert got.dtype == dtype
        assert relative_error(got, wanted + values) < ERRORS[dtype]
        got = linear.pack_native(library, dtype, weight, added, linear.Kind.WIDE)(x)
        assert got.dtype == torch.float32
        assert relative_error(got, wanted + values) < 1e-6


@pytest.mark.parametrize("rows", [1, 5, 32, 100, 128, 530])
def test_many_inputs(library, weights, rows):
    """Cut into slices where there are many rows; which changes nothing."""
    dtype = weights.dtype
    weight = weights(300, 2592)
    bias = numbers(300, dtype=dtype, seed=1)
    x = numbers(rows, 2592, dtype=dtype, seed=2)
    wanted = x.double() @ weight.double().T + bias.double()
    apply = linear.pack_native(library, dtype, weight, bias, linear.Kind.WIDE)
    got = apply(x)
    assert relative_error(got, wanted) < 1e-6
    assert torch.equal(got[:20], apply(x[:20]))


@pytest.mark.parametrize("rows", [1, 3, 16, 33, 1100])
@pytest.mark.parametrize("width", [16, 48, 24])
def test_gated_layers(library, weights, rows, width):
    dtype = weights.dtype
    weight = weights(2 * width, 96)
    bias = numbers(2 * width, dtype=dtype, seed=1)
    x = numbers(rows, 96, dtype=dtype, seed=2) / 4
    wanted = x.double() @ weight.double().T
    for added, values in ((None, 0.0), (bias, bias.double())):
        got = linear.pack_native(library, dtype, weight, added, linear.Kind.GATED)(x)
        assert got.dtype == dtype
        assert relative_error(got, silu_and_multiply(wanted + values)) < 2 * ERRORS[dtype]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_does_not_depend_on_the_others(library, weights, threads):
    apply = linear.pack_native(library, weights.dtype, weights(80, 128), None)
    x = numbers(300, 128, dtype=weights.dtype, seed=1)
    whole = apply(x)
    with so_many_threads(threads):
        if weights.dtype == torch.bfloat16:  # tiles and dot products add in other orders
            assert torch.equal(whole[:40], apply(x[:40]))
        else:
            for rows in (1, 2, 3, 4, 6, 7, 11, 40):
                assert torch.equal(whole[:rows], apply(x[:rows]))


def test_weights_are_kept_in_half_the_bytes_where_that_holds_them(library):
    narrow = numbers(64, 64, dtype=torch.bfloat16).float()
    wide = numbers(64, 64)
    for weight, kept in ((narrow, torch.float16), (wide, torch.float32)):
        layer = linear.pack_native(library, FLOAT, weight, None)
        assert layer._kept[0].dtype == kept


def test_inputs_that_do_not_fit_stay_with_torch(library, weights):
    weight, x = weights(8, 40), numbers(3, 40, dtype=weights.dtype)
    got = linear.pack_native(library, weights.dtype, weight, None, linear.Kind.WIDE)(x)
    assert got.dtype == torch.float32
    assert relative_error(got, x.double() @ weight.double().T) < 5e-3


@pytest.mark.parametrize("inputs", [64, 40])
@pytest.mark.parametrize("kind", linear.Kind)
def test_packing_keeps_nothing_of_the_weight(library, weights, kind, inputs):
    """The loader hands over what is mapped from a file."""
    weight, x = weights(32, inputs), numbers(3, inputs, dtype=weights.dtype)
    apply = linear.pack_native(library, weights.dtype, weight, None, kind)
    before = apply(x)
    weight.zero_()
    assert before.any()
    assert torch.equal(apply(x), before)


# --- pointwise --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 16), (3, 576), (200, 128), (2, 24)])
def test_rms_norm(library, shape, dtype):
    weight = numbers(shape[1], seed=1).to(dtype)
    x, residual = numbers(*shape, dtype=dtype), numbers(*shape, dtype=dtype, seed=2)
    reference = norm.prepare(weight, 1e-5)
    operations = pointwise.prepare_norm(library, dtype, weight, 1e-5)
    assert relative_error(operations.norm(x), reference.norm(x)) < TOLERANCE[dtype]
    mine, theirs = residual.clone(), residual.clone()
    got, wanted = operations.add_norm(x, mine), reference.add_norm(x, theirs)
    assert relative_error(got, wanted) < TOLERANCE[dtype]
    assert torch.equal(mine, theirs)


def test_rms_norm_of_views(library, dtype):
    weight = numbers(32, seed=1)
    operations = pointwise.prepare_norm(library, dtype, weight, 1e-5)
    rows = numbers(5, 96, dtype=dtype)
    for view in (rows[:, 32:64], rows.view(5, 3, 32)[:, 1:]):
        wanted = norm.prepare_wide(weight, 1e-5).norm(view)
        got = operations.norm(view)
        assert got.shape == view.shape
        assert relative_error(got, wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(1, 16), (3, 576), (200, 128), (2, 24)])
def test_layer_norm(library, shape, dtype):
    weight, bias = numbers(2, shape[1], seed=1).to(dtype)
    x, residual = numbers(*shape, dtype=dtype) + 3, numbers(*shape, dtype=dtype, seed=2)
    reference = norm.prepare_layer(weight, bias, 1e-5)
    operations = pointwise.prepare_layer_norm(library, dtype, weight, bias, 1e-5)
    assert relative_error(operations.norm(x), reference.norm(x)) < TOLERANCE[dtype]
    mine, theirs = residual.clone(), residual.clone()
    got, wanted = operations.add_norm(x, mine), reference.add_norm(x, theirs)
    assert relative_error(got, wanted) < TOLERANCE[dtype]
    assert torch.equal(mine, theirs)


def test_layer_norm_far_from_zero(library):
    """Where the mean of squares less the square of the mean would have no digit left."""
    x = numbers(4, 64) + 10_000
    operations = pointwise.prepare_layer_norm(library, FLOAT, torch.ones(64), torch.zeros(64), 0.0)
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    wanted = centred / centred.square().mean(-1, keepdim=True).sqrt()
    assert (operations.norm(x) - wanted).abs().max() < 2e-3


@pytest.mark.parametrize("width", [16, 48, 272, 1024, 20])
@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize("name", pointwise.FUNCTIONS)
def test_activations(library, name, rows, width, dtype):
    x = numbers(rows, 2 * width, dtype=dtype) * 4
    half = x[:, :width].contiguous()
    got = pointwise.activations(library, dtype)[name](half)
    assert relative_error(got, ACTIVATIONS[name](half)) < TOLERANCE[dtype]
    if name in GATED_ACTIVATIONS:
        got = pointwise.gated_activations(library, dtype)[name](x)
        assert relative_error(got, GATED_ACTIVATIONS[name](x)) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", pointwise.FUNCTIONS)
def test_activations_at_the_ends(library, name):
    ends = [-1e30, -200.0, -90.0, -6.0, -1e-6, 0.0, 1e-6, 6.0, 90.0, 1e30, 3.0, math.nan]
    x = torch.tensor([[*ends, -1.0, -0.5, 0.5, 1.0]])
    got = pointwise.activations(library, FLOAT)[name](x)
    assert torch.allclose(got, ACTIVATIONS[name](x), atol=1e-6, equal_nan=True)


def test_names_and_functions_of_activations():
    assert set(pointwise.FUNCTIONS) == set(ACTIVATIONS)


# --- sampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 16, 1000, 49152])
def test_summaries_of_logits(library, size):
    logits = numbers(6, size) * 10
    largest, log_sums = pointwise.summarize(library)(logits)
    wanted = sampling.summarize(logits)
    assert torch.equal(largest, wanted[0])
    assert torch.allclose(log_sums, wanted[1], atol=1e-4)


def test_summaries_of_views(library):
    """Shards fill up a vocabulary that cannot be cut evenly."""
    logits = numbers(5, 100)
    for view in (logits[:, :99], logits[:, 3:], logits.T):
        largest, log_sums = pointwise.summarize(library)(view)
        wanted = sampling.summarize(view)
        assert torch.equal(largest, wanted[0])
        assert torch.allclose(log_sums, wanted[1], atol=1e-4)


def test_the_first_of_equal_logits_wins(library):
    logits = torch.zeros(2, 100)
    logits[1, 37] = logits[1, 90] = 2.0
    largest, _ = pointwise.summarize(library)(logits)
    assert largest.tolist() == [0, 37]


def test_rows_without_a_distribution(library):
    logits = torch.zeros(3, 40)
    logits[0, 7] = float("nan")
    logits[1] = float("-inf")
    logits[2, 3] = float("inf")
    largest, log_sums = pointwise.summarize(library)(logits)
    assert not (logits.gather(1, largest[:, None])[:, 0] - log_sums).isfinite().any()
