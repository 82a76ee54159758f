"""A step's inputs as a message, and back. One copy on each side; nothing is pickled.

Numbers travel as int32: a block's number times 16 is far below 2**31.
"""

import numpy as np
import torch

from common.messages import Forward
from worker.batch import Assembly
from worker.inputs import StepInputs
from worker.transfers import Integers, Transfers


def message_of(assembly: Assembly) -> Forward:
    """For the followers, from what the host has assembled."""
    arrays = [array.ravel() for array in assembly.arrays]
    counts = np.array(assembly.counts, dtype=np.int64)
    numbers = bytes_of(np.concatenate((*arrays[:5], counts, arrays[5])))
    sequences, width = assembly.arrays[3].shape
    adapters = bytes_of(np.array(assembly.adapters, dtype=np.int64)) if assembly.adapters else b""
    return Forward(sequences, width, len(arrays[5]), assembly.decoding, numbers, adapters)


def assembled(inputs: StepInputs) -> Assembly:
    """The same step on the host. From a GPU, all of it comes in one transfer."""
    tensors = (
        inputs.token_ids,
        inputs.positions,
        inputs.slots,
        inputs.block_tables.flatten(),
        inputs.lengths,
        inputs.logit_rows,
    )
    host = torch.cat(tensors).cpu()
    parts = [part.numpy() for part in torch.split(host, [len(tensor) for tensor in tensors])]
    parts[3] = parts[3].reshape(inputs.block_tables.shape)
    return Assembly(
        tuple(parts),
        inputs.lengths_host,
        inputs.query_lengths_host,
        inputs.decode_sequences,
        (),
        inputs.adapters_host,
    )


def assembly_of(message: Forward) -> Assembly:
    """What a message says, on a follower's host."""
    host = integers_of(message.numbers)
    sequences, rows, tables = message.sequences, message.rows, message.sequences * message.width
    tokens = (len(host) - tables - 2 * sequences - rows) // 3
    sizes = [tokens, tokens, tokens, tables, sequences, sequences]
    ids, positions, slots, table, lengths, counts, logit_rows = np.split(host, np.cumsum(sizes))
    return Assembly(
        (ids, positions, slots, table.reshape(sequences, message.width), lengths, logit_rows),
        tuple(lengths.tolist()),
        tuple(counts.tolist()),
        message.decoding,
        (),
        tuple(integers_of(message.adapters).tolist()) if message.adapters else (),
    )


def inputs_of(message: Forward, transfers: Transfers) -> StepInputs:
    """The same tensors, on a follower's device."""
    assembly = assembly_of(message)
    return assembly.inputs(transfers.upload(assembly.arrays))


def bytes_of(numbers: Integers) -> bytes:
    """As they travel."""
    return numbers.astype(np.int32).tobytes()


def integers_of(numbers: bytes) -> Integers:
    """As the host has them: [n]."""
    return np.frombuffer(numbers, dtype=np.int32).astype(np.int64)
