"""Block tables and the tensors of a step, by hand."""

from types import SimpleNamespace

import pytest
import torch

from worker.batch import BlockTables, assemble, tokens_of, wanted_rows
from worker.transfers import HostTransfers
from worker.turns import Part


def part(tables: BlockTables, ids: list[int], start: int, tokens: int, blocks, *, prompt=None):
    sequence = SimpleNamespace(
        ids=ids,
        table_row=tables.add(blocks),
        announce=prompt is not None,
        wants_prompt_logprobs=prompt is not None,
        prompt_length=prompt,
    )
    return Part(sequence, start, tokens, start + tokens, start + tokens == len(ids))


def assembled(parts, decoding, rows, tables):
    assembly = assemble(parts, decoding, tokens_of(parts), rows, tables)
    return assembly.inputs(HostTransfers().upload(assembly.arrays))


def test_tables_grow_and_are_clean_after_release():
    tables = BlockTables()
    rows = [tables.add([number + 1]) for number in range(20)]
    assert len(set(rows)) == 20
    tables.append(rows[3], list(range(100, 130)))
    assert tables.rows([rows[3], rows[19]], 31).tolist() == [
        [4, *range(100, 130)],
        [20, *[0] * 30],
    ]
    for row in rows:
        tables.release(row)
    assert tables.rows_in_use == 0
    assert not tables.rows(list(range(20)), 31).any()


def test_decoding_sequences():
    tables = BlockTables()
    parts = [
        part(tables, list(range(18)), 17, 1, [5, 7, 9]),
        part(tables, [40], 0, 1, [3]),
    ]
    wanted, rows = wanted_rows(parts)
    inputs = assembled(parts, 2, rows, tables)
    assert inputs.token_ids.tolist() == [17, 40]
    assert inputs.positions.tolist() == [17, 0]
    assert inputs.slots.tolist() == [7 * 16 + 1, 3 * 16]
    assert inputs.block_tables.tolist() == [[5, 7], [3, 0]]
    assert inputs.lengths.tolist() == [18, 1] == list(inputs.lengths_host)
    assert (inputs.query_lengths_host, inputs.decode_sequences) == ((1, 1), 2)
    assert inputs.logit_rows.tolist() == [0, 1]
    assert wanted.next_tokens == parts
    assert {tensor.dtype for tensor in (inputs.token_ids, inputs.slots, inputs.logit_rows)} == {
        torch.int64
    }


@pytest.mark.parametrize("scored", [False, True])
def test_a_mixed_step(scored):
    tables = BlockTables()
    prompt = list(range(100, 120))
    parts = [
        part(tables, [1, 2, 3], 2, 1, [4]),
        part(tables, prompt, 14, 6, [8, 6], prompt=20 if scored else None),
        part(tables, prompt, 0, 3, [2], prompt=20 if scored else None),
    ]
    wanted, rows = wanted_rows(parts)
    inputs = assembled(parts, 1, rows, tables)
    assert inputs.token_ids.tolist() == [3, *range(114, 120), 100, 101, 102]
    assert inputs.positions.tolist() == [2, *range(14, 20), 0, 1, 2]
    assert inputs.slots.tolist() == [66, 142, 143, 96, 97, 98, 99, 32, 33, 34]
    assert inputs.query_lengths_host == (1, 6, 3)
    assert inputs.lengths_host == (3, 20, 3)
    assert wanted.next_tokens == parts[:2]
    if scored:
        assert inputs.logit_rows.tolist() == [0, 6, 1, 2, 3, 4, 5, 7, 8, 9]
        assert [following for _, following in wanted.prompts] == [
            [115, 116, 117, 118, 119],
            [101, 102, 103],
        ]
    else:
        assert inputs.logit_rows.tolist() == [0, 6]
