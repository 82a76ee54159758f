"""Blocks and leases: identity of prefixes, eviction order, and the invariant under any use."""

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.messages import BLOCK_TOKENS
from scheduler.blocks import BlockPool, KeyChain, blocks_for
from scheduler.leases import Fit, Lease, Leases


def chain(ids: list[int], salt: str = "", generated: list[int] | None = None) -> KeyChain:
    return KeyChain(salt, ids, generated if generated is not None else [])


@pytest.mark.parametrize(("tokens", "blocks"), [(0, 0), (1, 1), (16, 1), (17, 2), (32, 2)])
def test_blocks_for(tokens: int, blocks: int) -> None:
    assert blocks_for(tokens) == blocks


def test_keys_name_prefixes_not_blocks() -> None:
    ids = list(range(64))
    assert chain(ids).key(1) == chain([*ids[:32], 99]).key(1)
    assert chain(ids).key(1) != chain([5, *ids[1:]]).key(1)  # another parent
    assert chain(ids).key(0) != chain(ids, salt="tenant").key(0)
    assert chain([*[0] * 31, 1]).key(1) != chain([*[0] * 31, 2]).key(1)


def test_keys_do_not_care_where_the_prompt_ends() -> None:
    ids = list(range(80))
    whole = [chain(ids).key(i) for i in range(5)]
    for split in (1, 15, 16, 17, 40, 79):
        divided = chain(ids[:split], generated=ids[split:])
        assert [divided.key(i) for i in range(5)] == whole


def test_generated_ids_may_be_appended_while_the_chain_lives() -> None:
    generated: list[int] = []
    growing = chain(list(range(16)), generated=generated)
    growing.key(0)
    generated.extend(range(16, 32))
    assert growing.tokens == 32
    assert growing.key(1) == chain(list(range(32))).key(1)


def test_block_zero_is_never_given_out() -> None:
    pool = BlockPool(5)
    assert sorted(pool.take(5)) == [1, 2, 3, 4, 5]
    assert pool.available == 0
    assert pool.check() == ""


def test_tails_are_evicted_before_heads_and_old_before_new() -> None:
    pool = BlockPool(4)
    old, new = chain([1] * 32), chain([2] * 32)
    for keys in (old, new):
        blocks = pool.take(2)
        for index, block in enumerate(blocks):
            pool.register(block, keys.key(index))
        pool.put_back(blocks)
    lengths = []
    for _ in range(4):
        pool.take(1)
        lengths.append((len(pool.match(old, 2)), len(pool.match(new, 2))))
    assert lengths == [(1, 2), (0, 2), (0, 1), (0, 0)]
    assert pool.check() == ""


def test_a_hit_makes_a_prefix_young_again() -> None:
    pool = BlockPool(2)
    keys = [chain([n] * 16) for n in (1, 2)]
    for key in keys:
        (block,) = pool.take(1)
        pool.register(block, key.key(0))
        pool.put_back([block])
    hit = pool.match(keys[0], 1)
    pool.share(hit)
    pool.put_back(hit)
    pool.take(1)
    assert [len(pool.match(key, 1)) for key in keys] == [1, 0]


def test_blocks_in_use_are_not_evicted() -> None:
    pool = BlockPool(2)
    (held,) = pool.take(1)
    pool.register(held, chain([1] * 16).key(0))
    assert pool.take(1) != [held]
    assert pool.available == 0


def test_of_equal_blocks_the_first_stays_findable() -> None:
    pool = BlockPool(3)
    key = chain([1] * 16)
    first, second = pool.take(2)
    pool.register(first, key.key(0))
    pool.register(second, key.key(0))
    assert pool.match(key, 1) == [first]
    pool.put_back([second])
    assert (pool.free, pool.cached) == (2, 0)


@pytest.mark.parametrize(
    ("known", "shared"), [(16, 0), (17, 1), (32, 1), (33, 2), (48, 2), (49, 3)]
)
def test_at_least_one_token_is_recomputed(known: int, shared: int) -> None:
    leases = Leases(BlockPool(20), caching=True)
    ids = list(range(64))
    fit = leases.fit(chain(ids), 4, read_cache=True)
    lease = leases.open(1, fit, chain(ids), limit=4)
    leases.confirm(lease, 64)
    assert len(leases.fit(chain(ids[:known]), 5, read_cache=True).shared) == shared
    assert leases.fit(chain(ids[:known]), 5, read_cache=False).shared == []


def test_only_computed_full_blocks_are_findable() -> None:
    leases = Leases(BlockPool(20), caching=True)
    ids = list(range(64))
    lease = leases.open(1, Fit([], 4, 0), chain(ids), limit=4)
    for computed, findable in [(0, 0), (15, 0), (16, 1), (47, 2), (63, 3), (64, 3)]:
        leases.confirm(lease, computed)
        assert len(leases.fit(chain(ids), 4, read_cache=True).shared) == findable


def test_a_worker_that_claims_too_much_registers_nothing_unknown() -> None:
    leases = Leases(BlockPool(20), caching=True)
    lease = leases.open(1, Fit([], 2, 0), chain(list(range(20))), limit=4)
    leases.confirm(lease, 10_000)
    assert lease.registered == 1
    leases.release(1)
    assert leases.check() == ""


def test_without_caching_nothing_stays() -> None:
    leases = Leases(BlockPool(20), caching=False)
    ids = list(range(64))
    lease = leases.open(1, leases.fit(chain(ids), 4, read_cache=True), chain(ids), limit=4)
    leases.confirm(lease, 64)
    leases.release(1)
    assert (leases.pool.free, leases.pool.cached) == (20, 0)


def test_sharing_idle_blocks_costs_availability() -> None:
    leases = Leases(BlockPool(10), caching=True)
    ids = list(range(65))
    lease = leases.open(1, leases.fit(chain(ids), 5, read_cache=True), chain(ids), limit=5)
    leases.confirm(lease, 64)
    leases.release(1)
    fit = leases.fit(chain(ids), 6, read_cache=True)
    assert (len(fit.shared), fit.fresh, fit.available_after) == (4, 2, 4)
    leases.open(2, fit, chain(ids), limit=6)
    assert leases.pool.available == 4
    again = leases.fit(chain(ids), 6, read_cache=True)
    assert again.available_after == 2
    leases.open(3, again, chain(ids), limit=6)
    assert leases.freed_by(2) == leases.freed_by(3) == 2  # not what they share


def test_the_check_sees_damage() -> None:
    leases = Leases(BlockPool(10), caching=True)
    leases.open(1, Fit([], 3, 0), chain([1]), limit=4)
    assert leases.check() == ""
    leases.get(1).blocks.pop()  # type: ignore[union-attr]
    assert leases.check() != ""
    pool = BlockPool(3)
    pool.put_back(pool.take(1))
    pool._free.pop()
    assert "!=" in pool.check()


class LeaseMachine(RuleBasedStateMachine):
    """Random sequences over few distinct prompts; a model of the KV memory checks the sharing."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(BlockPool(12), caching=True)
        self.running: dict[int, tuple[Lease, list[int], list[int], str]] = {}
        self.memory: dict[int, list[tuple[str, tuple[int, ...]]]] = {}  # block: prefix per slot
        self.count = 0

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=4),
        cut=st.integers(0, 15),
        salt=st.sampled_from(["", "s"]),
        read=st.booleans(),
    )
    def admit(self, prompt: list[int], cut: int, salt: str, read: bool) -> None:
        ids = [block for block in prompt for _ in range(BLOCK_TOKENS)][cut:]
        generated: list[int] = []
        keys = chain(ids, salt, generated)
        limit = blocks_for(len(ids) + 40)
        wanted = min(blocks_for(len(ids)) + 1, limit)
        fit = self.leases.fit(keys, wanted, read_cache=read)
        if fit.available_after < 0:
            return
        before = self.leases.pool.available
        self.count += 1
        lease = self.leases.open(self.count, fit, keys, limit=limit)
        assert self.leases.pool.available == fit.available_after <= before
        assert lease.computed < len(ids)
        assert lease.computed % BLOCK_TOKENS == 0
        self.running[self.count] = (lease, ids, generated, salt)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 40))
    def compute(self, data: st.DataObject, tokens: int) -> None:
        lease, ids, generated, salt = self.running[data.draw(st.sampled_from([*self.running]))]
        end = min(lease.computed + tokens, lease.capacity)
        while len(ids) + len(generated) < end:
            generated.append(0)
        known = ids + generated
        for position in range(lease.computed, end):
            block = lease.blocks[position // BLOCK_TOKENS]
            assert self.leases.pool.users(block) == 1, "a shared block would be written to"
            slots = self.memory.setdefault(block, [("", ())] * BLOCK_TOKENS)
            slots[position % BLOCK_TOKENS] = (salt, tuple(known[: position + 1]))
        self.leases.confirm(lease, end)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), count=st.integers(1, 3))
    def grow(self, data: st.DataObject, count: int) -> None:
        lease = self.running[data.draw(st.sampled_from([*self.running]))][0]
        if self.leases.pool.available >= count:
            self.leases.grow(lease, count)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from([*self.running]))
        expected = self.leases.pool.available + self.leases.freed_by(sequence)
        self.leases.release(sequence)
        assert self.leases.pool.available == expected
        del self.running[sequence]

    @invariant()
    def accounts_balance(self) -> None:
        assert self.leases.check() == ""
        assert len(self.leases) == len(self.running)

    @invariant()
    def what_counts_as_computed_is_in_memory(self) -> None:
        for lease, ids, generated, salt in self.running.values():
            known = ids + generated
            for position in range(lease.computed):
                slot = self.memory[lease.blocks[position // BLOCK_TOKENS]][position % BLOCK_TOKENS]
                assert slot == (salt, tuple(known[: position + 1]))


LeaseMachine.TestCase.settings = hypothesis_settings(max_examples=40, stateful_step_count=30)
TestLeases = LeaseMachine.TestCase
