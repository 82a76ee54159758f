"""Runs sequences with drafts among others, and disturbs them; what they say must be the same."""

import random
from dataclasses import dataclass, replace

import msgspec
import pytest
import torch

from common.messages import BLOCK_TOKENS
from common.sampling import SamplingParameters
from tests.worker.driver import CPU, GREEDY, Driver, Record
from tests.worker.speculation.oracle import Oracle
from tests.worker.texts import SAMPLED, text
from worker.cache import KVCache
from worker.speculation.speculation import Speculation

BLOCKS = 700
SAMPLINGS = [
    GREEDY,
    SamplingParameters(top_n_tokens=3),
    *SAMPLED,
    msgspec.structs.replace(SAMPLED[0], top_n_tokens=2),
]


@dataclass(frozen=True)
class Order:
    """What one sequence is to say."""

    prompt: list[int]
    count: int
    sampling: SamplingParameters
    stops: tuple[int, ...] = ()

    @property
    def options(self):
        return {"sampling": self.sampling, "stop_token_ids": list(self.stops)}


def driver_of(model, tokens: int = 0, oracle: Oracle | None = None) -> Driver:
    """With drafts, if ``tokens``; of the oracle, or by n-grams."""
    cache = KVCache(model.configuration, BLOCKS, CPU, model.configuration.dtype)
    for layer in cache.layers:
        layer.fill_(torch.nan)  # nobody may read what was not written
    speculation = None
    if tokens:
        speculation = Speculation(tokens, oracle) if oracle else Speculation(tokens)
    return Driver(model, cache, blocks=BLOCKS, speculation=speculation)


def alone(model, order: Order) -> Record:
    """Without drafts, without company."""
    driver = driver_of(model)
    driver.add(0, order.prompt, order.count, **order.options)
    driver.run()
    return driver.records[0]


def orders_of(model, choice: random.Random, count: int) -> tuple[list[Order], list[Record]]:
    """All kinds of sampling, some with a stop token; and what each says alone."""
    orders, records = [], []
    for number in range(count):
        order = Order(
            text(choice, choice.randrange(1, 60)),
            choice.randrange(1, 45),
            SAMPLINGS[number % len(SAMPLINGS)],
        )
        record = alone(model, order)
        if number % 3 == 0:
            order = replace(order, stops=(choice.choice(record.ids),))
            record = alone(model, order)
        orders.append(order)
        records.append(record)
    return orders, records


def check_disturbed(model, tokens: int, seed: int, count: int = 16) -> None:
    """Arrivals, budgets, leases, preemptions and cancellations at random."""
    choice = random.Random(seed)
    orders, expected = orders_of(model, choice, count)
    known = [
        order.prompt + record.ids
        for number, (order, record) in enumerate(zip(orders, expected, strict=True))
        if number % 4 != 3  # of the others there are no drafts
    ]
    driver = driver_of(model, tokens, Oracle(known, lies=0.2, seed=seed))
    waiting, cancelled = list(range(count)), set()
    while waiting or driver.engine.held:
        driver.step_tokens = choice.choice([3, 9, 40, 200])
        if waiting and choice.random() < 0.3:
            number = waiting.pop(0)
            order = orders[number]
            room = choice.randrange(1, len(order.prompt) + 1)
            driver.add(number, order.prompt, order.count, room=room, **order.options)
        if driver.step() is None:
            driver.dispatch()
        for number, order in enumerate(orders):
            if number not in driver.leases or number in cancelled or over(driver, number):
                continue
            held = len(driver.leases[number]) * BLOCK_TOKENS
            if held < len(order.prompt) + order.count and choice.random() < 0.4:
                driver.grant(number, 16)
            elif choice.random() < 0.03:
                again(driver, number, order)
            elif number % 5 == 4 and choice.random() < 0.02:
                driver.release(number)
                cancelled.add(number)
    assert driver.drafted > 20
    for number, record in enumerate(expected):
        if number in cancelled:
            assert driver.records[number].ids == record.ids[: len(driver.records[number].ids)]
        else:
            check_same(driver.records[number], record)


def over(driver: Driver, number: int) -> bool:
    return bool(driver.records[number].finish)


def again(driver: Driver, number: int, order: Order) -> None:
    """Preempted, and continued on its own full blocks, as if they came from the prefix cache."""
    record = driver.records[number]
    cached = record.computed // BLOCK_TOKENS * BLOCK_TOKENS if record.ids else 0
    blocks = driver.leases[number][: cached // BLOCK_TOKENS]
    blocks = blocks + driver.lease(len(order.prompt) + order.count - cached)
    generated = record.ids[:]
    new = driver.new(
        number, order.prompt, order.count, generated=generated, blocks=blocks, cached=cached,
        **order.options,
    )  # fmt: skip
    driver.dispatch(release=[number], add=[new])


def check_same(record: Record, expected: Record) -> None:
    assert record.error == ""
    assert (record.ids, record.finish) == (expected.ids, expected.finish)
    assert record.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert [[token for token, _ in top] for top in record.tops] == [
        [token for token, _ in top] for top in expected.tops
    ]
