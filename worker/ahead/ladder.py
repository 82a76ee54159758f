"""For which numbers of rows a step in which all sequences decode is recorded.

Runs in the worker, once. A step is padded to the next size, and what it pads is computed for
nobody: less than a third of it beyond 16 sequences, less than a fifth beyond 32.
"""

from common.settings import Settings

_LARGEST = 256
"""PERF: beyond it a step takes so long that its launches hide behind it."""
_FIRST = (1, 2, 4)
_SHARE = 8
"""Beyond 64, sizes are so many to each doubling; between 8 and 64, multiples of 8."""


def sizes_for(settings: Settings, rows: int) -> list[int]:
    """What ``--cuda-graphs`` says, or what suits a worker of at most ``rows`` in a step."""
    if settings.cuda_graphs is not None:
        return [size for size in sorted(set(settings.cuda_graphs)) if size]
    largest = min(rows, _LARGEST)
    sizes = [size for size in _FIRST if size < largest]
    size = 8
    while size < largest:
        sizes.append(size)
        size += max(8, (1 << size.bit_length() - 1) // _SHARE)
    return [*sizes, largest]
