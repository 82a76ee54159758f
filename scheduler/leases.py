"""Leases: which blocks each sequence of one replica holds.

Owns the sequences' blocks; ``Leases.release`` is the one place where blocks go back. Decides how
much of a prefix is shared and registers what the worker confirmed as computed. Knows neither
queue nor workers.

A shared block is never written to: sharing covers whole blocks only and always leaves at least one
known token to be computed, so that the first written block is a fresh one.
"""

from collections.abc import Callable
from typing import NamedTuple

from common.messages import BLOCK_TOKENS
from scheduler.blocks import BlockPool, KeyChain, blocks_for

LOW_ROOM_TOKENS = 2 * BLOCK_TOKENS
"""A running sequence with no more room than this should get more blocks …"""
ENOUGH_ROOM_TOKENS = 3 * BLOCK_TOKENS
"""… until it has at least this much …"""
AMPLE_ROOM_TOKENS = 6 * BLOCK_TOKENS
"""… or this much, while there is as much for everybody, so that most steps need no grant."""


class Fit(NamedTuple):
    """What a sequence would need."""

    shared: list[int]
    """Cached blocks that it would begin with."""
    fresh: int
    """Blocks that it would have to write to."""
    available_after: int
    """Blocks still available then; negative if it does not fit."""

    @property
    def cached_tokens(self) -> int:
        """Tokens at the start that need no computing."""
        return len(self.shared) * BLOCK_TOKENS


class Lease:
    """The blocks of one sequence, in order, and how far they are filled."""

    __slots__ = ("blocks", "capacity", "chain", "computed", "limit", "registered")

    def __init__(self, blocks: list[int], chain: KeyChain, *, limit: int, shared: int) -> None:
        self.blocks = blocks
        self.chain = chain
        self.limit = limit
        """Blocks that the sequence can use at most: prompt and all that it may generate."""
        self.capacity = len(blocks) * BLOCK_TOKENS
        self.computed = shared * BLOCK_TOKENS
        """Tokens whose keys and values are written; of a steady sequence, when its latest block was
        begun (``Record.steady_until``)."""
        self.registered = shared
        """Blocks at the start that have been offered to the prefix cache."""

    @property
    def room_tokens(self) -> int:
        """Tokens that can be computed before the lease is full."""
        return self.capacity - self.computed

    @property
    def is_low(self) -> bool:
        """Whether more blocks are needed soon."""
        return self.capacity - self.computed <= LOW_ROOM_TOKENS and len(self.blocks) < self.limit

    def wanted(self, room_tokens: int) -> int:
        """Blocks missing for so much room, as far as the sequence can ever use them."""
        target = min(blocks_for(self.computed + room_tokens), self.limit)
        return max(target - len(self.blocks), 0)


class Leases:
    """All leases of a replica."""

    def __init__(self, pool: BlockPool, *, caching: bool) -> None:
        """Without ``caching`` nothing is shared and nothing stays findable."""
        self.pool = pool
        self._caching = caching
        self._held: dict[int, Lease] = {}
        self.get: Callable[[int], Lease | None] = self._held.get
        """The lease of a sequence, if it holds one. PERF: asked for every token."""

    def __len__(self) -> int:
        return len(self._held)

    def fit(self, chain: KeyChain, blocks: int, *, read_cache: bool) -> Fit:
        """What a sequence with these known tokens would need for ``blocks`` blocks in all."""
        shared: list[int] = []
        if self._caching and read_cache:
            shared = self.pool.match(chain, min((chain.tokens - 1) // BLOCK_TOKENS, blocks))
        fresh = blocks - len(shared)
        left = self.pool.available - self.pool.idle_among(shared) - fresh
        return Fit(shared, fresh, left)

    def open(self, sequence: int, fit: Fit, chain: KeyChain, *, limit: int) -> Lease:
        """Lease what ``fit`` says; nothing may have happened since it was made."""
        self.pool.share(fit.shared)
        blocks = fit.shared + self.pool.take(fit.fresh)
        lease = Lease(blocks, chain, limit=limit, shared=len(fit.shared))
        self._held[sequence] = lease
        return lease

    def grow(self, lease: Lease, count: int) -> list[int]:
        """More blocks for a lease; at most as many as are available."""
        blocks = self.pool.take(count)
        lease.blocks.extend(blocks)
        lease.capacity += count * BLOCK_TOKENS
        return blocks

    def confirm(self, lease: Lease, computed: int) -> None:
        """The worker has written so many tokens: full blocks become findable."""
        lease.computed = computed
        full = computed // BLOCK_TOKENS
        if full > lease.registered and self._caching:
            full = min(full, len(lease.blocks), lease.chain.tokens // BLOCK_TOKENS)
            keys = lease.chain.keys(full)
            for index in range(lease.registered, full):
                self.pool.register(lease.blocks[index], keys[index + 1])
            lease.registered = max(full, lease.registered)

    def release(self, sequence: int) -> None:
        """End a sequence's lease: the one place where blocks go back."""
        self.pool.put_back(self._held.pop(sequence).blocks)

    def freed_by(self, sequence: int) -> int:
        """Blocks that the end of this lease would make available."""
        return self.pool.exclusive(self._held[sequence].blocks)

    def check(self) -> str:
        """What is wrong, looking at everything; empty if nothing is."""
        wrong = self.pool.check()
        if wrong:
            return wrong
        users: dict[int, int] = {}
        for lease in self._held.values():
            for block in lease.blocks:
                users[block] = users.get(block, 0) + 1
        if any(self.pool.users(block) != count for block, count in users.items()):
            return "a block's users and the leases disagree"
        if len(users) != self.pool.leased:
            return f"{self.pool.leased} blocks are leased, but the leases hold {len(users)}"
        return ""
