"""The C kernels, compiled for every instruction set that this machine has: once per run."""

import shutil

import pytest

from worker.kernels.cpu.library import ELEMENTS, VARIANTS, compile_to, load, read_cpu_flags


def loaded(kept, variant):
    """Skips what cannot be: that everything runs without the kernels is tested all the same."""
    if not shutil.which("gcc"):
        pytest.skip("no C compiler on this machine")
    if not variant.needs <= read_cpu_flags():
        pytest.skip("this processor lacks these instructions")
    found = load([kept], cpu_flags=variant.needs)
    if found is None or found.variant is not variant:
        compile_to(kept / "again.so", variant)  # what does not compile is an error
        pytest.skip("the system does not let this process use these instructions")
    return found


@pytest.fixture(scope="session")
def library(request, kept):
    """The kernels of each instruction set."""
    return loaded(kept, request.param)


@pytest.fixture(
    scope="session",
    params=[variant for variant in VARIANTS if variant.bfloat16],
    ids=lambda variant: variant.name,
)
def bfloat16(request, kept):
    """Those that have kernels for bfloat16."""
    return loaded(kept, request.param)


@pytest.fixture
def dtype(request):
    """Each type of numbers that the library has kernels for."""
    return request.param


def pytest_generate_tests(metafunc):
    """Libraries, and types of numbers where a test asks for them: no pair that there is not."""
    names = set(metafunc.fixturenames) & {"library", "dtype"}
    if names == {"library", "dtype"}:
        pairs = [
            pytest.param(variant, dtype, id=f"{variant.name}-{dtype}")
            for variant in VARIANTS
            for dtype, element in ELEMENTS.items()
            if element in variant.elements
        ]
        metafunc.parametrize(("library", "dtype"), pairs, indirect=True, scope="session")
    elif names == {"library"}:
        ids = [variant.name for variant in VARIANTS]
        metafunc.parametrize("library", VARIANTS, indirect=True, ids=ids, scope="session")
