"""Drafts from the sequence's own text: what followed its last tokens the last time.

Runs in the worker. Where an answer repeats what it has read (edited code, quotations, lists), the
tokens after an earlier occurrence of the latest n-gram are likely the next ones. Method: Saxena,
"Prompt lookup decoding", 2023. Text alone decides; a continued sequence builds the index anew.
"""

from array import array

import numpy as np

_SIZES = (3, 2)
"""Tokens of the n-grams that are looked for, the surest first."""
_FEWEST_PLACES, _MOST_PLACES = 1 << 8, 1 << 17
"""Of an index, which takes 4 bytes for each and n-gram size: 1 MiB a sequence at most. Where two
n-grams share a place, the later one has it."""
_FEW = 16
"""PERF: so many new tokens are entered one by one, at 0.5 us each; more by numpy, at 0.2 us."""
_FACTORS = (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9)


class NgramDrafter:
    """As ``Drafter``."""

    __slots__ = ("_entered", "_ids", "_mask", "_tables")

    def __init__(self, ids: list[int], longest: int) -> None:
        """As ``MakeDrafter``."""
        wanted = 1 << (2 * longest - 1).bit_length()
        places = min(max(wanted, _FEWEST_PLACES), _MOST_PLACES)
        self._ids = ids
        self._mask = places - 1
        self._entered = 0
        """Tokens before this one are in the tables, as what follows an n-gram."""
        self._tables = [array("i", bytes(4 * places)) for _ in _SIZES]
        """By n-gram, the position of what followed it the last time; 0: it is new."""

    def propose(self, most: int) -> list[int]:
        """As ``Drafter.propose``. A text that repeats itself is taken to go on repeating."""
        ids, end = self._ids, len(self._ids)
        for size, table in zip(_SIZES, self._tables, strict=True):
            if end > self._entered:
                self._enter(size, table)
        self._entered = end
        for size, table in zip(_SIZES, self._tables, strict=True):
            if end <= size:
                continue
            last = ids[end - size :]
            place = table[_hash(last) & self._mask]
            if place and ids[place - size : place] == last:
                found = ids[place : place + most]
                return (found * (most // len(found) + 1))[:most]
        return []

    def _enter(self, size: int, table: "array[int]") -> None:
        """What has come since the last time."""
        ids, mask = self._ids, self._mask
        first, end = max(self._entered, size), len(ids)
        if end - first <= _FEW:
            for place in range(first, end):
                table[_hash(ids[place - size : place]) & mask] = place
            return
        known = np.array(ids[first - size : end - 1], dtype=np.int64)
        count = end - first
        hashes = np.zeros(count, dtype=np.int64)
        for column, factor in zip(range(size), _FACTORS, strict=False):
            hashes += known[column : column + count] * factor
        hashes ^= hashes >> 17
        # Of a place that is written twice, the last value stays.
        np.frombuffer(table, dtype=np.int32)[hashes & mask] = np.arange(first, end, dtype=np.int32)


def _hash(gram: list[int]) -> int:
    """The same as of whole columns; below 2**62 for ids below 2**30."""
    value = sum([token * factor for token, factor in zip(gram, _FACTORS, strict=False)])
    return value ^ value >> 17
