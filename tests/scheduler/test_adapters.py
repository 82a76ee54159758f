"""Adapters in the scheduler: whose blocks may be shared, and what gateways are told."""

import pytest

from common.adapters import Adapter
from common.messages import Recover, Rejected, Submit
from scheduler.blocks import KeyChain
from tests.scheduler.harness import House, sequence_id, spec, started

ADAPTERS = [
    Adapter(name=name, digest=digest, directory="/a", source="/a")
    for name, digest in (("a", "1" * 64), ("b", "2" * 64), ("again-a", "1" * 64))
]
A, B = "1" * 64, "2" * 64
IDS = list(range(40))


def test_keys_begin_with_the_adapter() -> None:
    roots = [("", ""), ("", A), ("", B), ("salt", ""), ("salt", A), (A, "")]
    keys = {KeyChain(salt, IDS, [], adapter).key(0) for salt, adapter in roots}
    assert len(keys) == len(roots)
    assert KeyChain("", IDS, [], A).key(1) == KeyChain("", IDS[:20], IDS[20:], A).key(1)


@pytest.mark.parametrize(
    ("first", "second", "cached"), [("", "", 32), (A, A, 32), (A, B, 0), (A, "", 0), ("", A, 0)]
)
def test_blocks_are_shared_by_sequences_of_one_adapter(first, second, cached: int) -> None:
    house = started()
    house.submit(1, IDS, 5, adapter=first)
    house.report(house.token(sequence_id(1), 7))
    house.submit(2, IDS, 5, adapter=second)
    (new,) = house.dispatches()[-1].add
    assert (new.cached_tokens, new.spec.adapter) == (cached, second)


def test_a_recovered_sequence_still_has_it() -> None:
    house = started()
    house.submit(1, IDS, 5, adapter=A)
    house.ready(incarnation=99)
    house.turn()
    assert house.said(Recover)[-1].ids == [sequence_id(1)]
    house.from_frontend(Submit(spec(1, IDS, 5, adapter=A), attempt=1, generated_ids=[7]))
    house.turn()
    (new,) = house.dispatches()[-1].add
    assert (new.generated_ids, new.spec.adapter) == ([7], A)


def test_a_digest_that_is_none_is_refused() -> None:
    house = started()
    house.submit(1, adapter="x" * 65)
    (refused,) = house.said(Rejected)
    assert (refused.reason, refused.message) == ("invalid", "the adapter's digest is none")


def in_use(house: House) -> tuple[dict[str, str], float]:
    (family,) = [
        f for f in house.metrics.registry.collect() if f.name == "millrace_lora_requests_info"
    ]
    (sample,) = family.samples
    return sample.labels, sample.value


def test_gateways_learn_which_run_and_which_wait() -> None:
    house = started(adapters=ADAPTERS, max_batch_size=2)
    labels, began = in_use(house)
    assert labels == {
        "max_lora": "3", "running_lora_adapters": "", "waiting_lora_adapters": "",
    }  # fmt: skip
    assert in_use(house) == (labels, began)
    house.submit(1, adapter=A)
    house.submit(2)
    house.submit(3, adapter=B)
    house.submit(4, adapter=B)
    labels, changed = in_use(house)
    assert labels["running_lora_adapters"] == "a"
    assert labels["waiting_lora_adapters"] == "b"
    assert changed >= began
