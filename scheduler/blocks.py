"""The KV blocks of one replica: free list, prefix cache, least recently used.

Owns which block holds what and how many sequences share it. Blocks are plain integers; what they
hold lies in the worker. Knows no sequences: ``leases.py`` says who holds a block. Every operation
is O(1) per block, nothing is scanned; only ``check`` looks at everything.

A block is in exactly one of three places: *free* (holds nothing of use), *cached* (holds a keyed
prefix that nobody uses at the moment, evicted least recently used first) or *leased* (used by at
least one sequence). Keys are chained (see vLLM's automatic prefix caching for the idea): the key of
a block is a BLAKE2b hash of its parent's key and its 16 token ids, so that equal keys mean equal
prefixes; the chain starts from the sequence's ``cache_salt``, so that only those of one salt can
probe each other's prompts, and from the digest of the adapter, with which the same tokens have
other keys and values.
"""

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from common.messages import BLOCK_TOKENS

_KEY_BYTES = 32
_encode = msgspec.msgpack.Encoder().encode


def blocks_for(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class KeyChain:
    """The keys of a sequence's full blocks, computed once and only as far as asked for.

    Holds references to the two lists of token ids: generated ids may be appended while it lives.
    """

    __slots__ = ("_generated", "_keys", "_prompt")

    def __init__(
        self, salt: str, prompt_ids: list[int], generated_ids: list[int], adapter: str = ""
    ) -> None:
        """``adapter``: its digest, of at most 64 bytes; empty: none."""
        root = blake2b(
            salt.encode(), digest_size=_KEY_BYTES, key=adapter.encode(), person=b"millrace"
        )
        self._keys = [root.digest()]
        self._prompt = prompt_ids
        self._generated = generated_ids

    @property
    def tokens(self) -> int:
        """Tokens whose ids are known."""
        return len(self._prompt) + len(self._generated)

    def key(self, index: int) -> bytes:
        """The key of block ``index``, all of whose tokens must be known."""
        return self.keys(index + 1)[index + 1]

    def keys(self, count: int) -> list[bytes]:
        """The key that the chain begins with, and those of at least the first ``count`` blocks.

        All tokens of these blocks must be known. The caller only reads.
        """
        keys = self._keys
        for block in range(len(keys) - 1, count):
            packed = _encode(self._ids(block * BLOCK_TOKENS))
            keys.append(blake2b(keys[-1] + packed, digest_size=_KEY_BYTES).digest())
        return keys

    def _ids(self, start: int) -> list[int]:
        end = start + BLOCK_TOKENS
        split = len(self._prompt)
        if end <= split:
            return self._prompt[start:end]
        ids = self._prompt[start:] if start < split else []
        return ids + self._generated[max(start - split, 0) : end - split]


class BlockPool:
    """Blocks 1 … ``total`` of a replica. Block 0 is never given out: padding is written there."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._users = [0] * (total + 1)  # [block]: sequences that use it
        self._keys: list[bytes | None] = [None] * (total + 1)  # [block]: what it is findable by
        self._free = list(range(total, 0, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # cached, oldest first
        self._by_key: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that hold nothing of use."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Blocks that nobody uses and that hold a findable prefix."""
        return len(self._idle)

    @property
    def available(self) -> int:
        """Blocks that ``take`` could give out."""
        return len(self._free) + len(self._idle)

    @property
    def leased(self) -> int:
        """Blocks in use; a shared one counts once."""
        return self.total - self.available

    def match(self, chain: KeyChain, limit: int) -> list[int]:
        """The blocks of the longest cached prefix, at most ``limit`` of them."""
        found: list[int] = []
        while len(found) < limit:
            block = self._by_key.get(chain.key(len(found)))
            if block is None:
                break
            found.append(block)
        return found

    def idle_among(self, blocks: Iterable[int]) -> int:
        """How many of these nobody uses: sharing them makes so many fewer available."""
        users = self._users
        return sum(users[block] == 0 for block in blocks)

    def exclusive(self, blocks: Iterable[int]) -> int:
        """How many of these have exactly one user: what that one's end would make available."""
        users = self._users
        return sum(users[block] == 1 for block in blocks)

    def share(self, blocks: list[int]) -> None:
        """One more sequence uses these blocks, for reading only."""
        for block in blocks:
            if self._users[block] == 0:
                del self._idle[block]
            self._users[block] += 1

    def take(self, count: int) -> list[int]:
        """``count`` blocks for one sequence to write to; at most ``available``.

        Evicts the least recently used prefixes once nothing is free.
        """
        taken = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _ = self._idle.popitem(last=False)
                self._forget(block)
            self._users[block] = 1
            taken.append(block)
        return taken

    def register(self, block: int, key: bytes) -> None:
        """Make a full block in use findable. Of equal blocks the first one stays findable."""
        if self._keys[block] is None and key not in self._by_key:
            self._keys[block] = key
            self._by_key[key] = block

    def put_back(self, blocks: list[int]) -> None:
        """One sequence less uses these blocks. The tail goes first, so that heads survive."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                if self._keys[block] is None:
                    self._free.append(block)
                else:
                    self._idle[block] = None

    def users(self, block: int) -> int:
        """Sequences that use a block."""
        return self._users[block]

    def check(self) -> str:
        """What is wrong, looking at every block; empty if nothing is."""
        used = sum(1 for users in self._users if users)
        places = [*self._free, *self._idle]
        if self.free + self.cached + used != self.total:
            return f"{self.free} free + {self.cached} cached + {used} leased != {self.total}"
        if len(set(places)) != len(places) or 0 in places or self._users[0]:
            return "a block is in two places, or block 0 was given out"
        if any(self._users[block] for block in places):
            return "a block in use is also free"
        if any(self._keys[block] is not None for block in self._free):
            return "a free block is still findable"
        keyed = {block: key for block, key in enumerate(self._keys) if key is not None}
        if {block: key for key, block in self._by_key.items()} != keyed:
            return "the prefix cache and the blocks' keys disagree"
        if any(block not in keyed for block in self._idle):
            return "a cached block has no key"
        return ""

    def _forget(self, block: int) -> None:
        key = self._keys[block]
        if key is not None:
            del self._by_key[key]
            self._keys[block] = None
