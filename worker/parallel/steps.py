"""A step's inputs as a message, and back. One copy on each side; nothing is pickled.

Numbers travel as int32: a block's number times 16 is far below 2**31.
"""

import numpy as np
import torch

from common.messages import Forward
from worker.inputs import StepInputs


def message_of(inputs: StepInputs) -> Forward:
    """For the followers. From a GPU, all of it comes in one transfer."""
    tensors = (
        inputs.token_ids,
        inputs.positions,
        inputs.slots,
        inputs.block_tables.flatten(),
        inputs.lengths,
        torch.tensor(inputs.query_lengths_host, device=inputs.lengths.device),
        inputs.logit_rows,
    )
    numbers = torch.cat(tensors).to(torch.int32).cpu().numpy().tobytes()
    sequences, width = inputs.block_tables.shape
    return Forward(sequences, width, len(inputs.logit_rows), inputs.decode_sequences, numbers)


def inputs_of(message: Forward, device: torch.device) -> StepInputs:
    """The same tensors, on a follower's device."""
    host = np.frombuffer(message.numbers, dtype=np.int32).astype(np.int64)
    sequences, rows, tables = message.sequences, message.rows, message.sequences * message.width
    tokens = (len(host) - tables - 2 * sequences - rows) // 3
    numbers = torch.from_numpy(host).to(device)
    sizes = [tokens, tokens, tokens, tables, sequences, sequences, rows]
    ids, positions, slots, table, lengths, _, logit_rows = torch.split(numbers, sizes)
    after = 3 * tokens + tables
    return StepInputs(
        token_ids=ids,
        positions=positions,
        slots=slots,
        block_tables=table.view(sequences, message.width),
        lengths=lengths,
        lengths_host=tuple(host[after : after + sequences].tolist()),
        query_lengths_host=tuple(host[after + sequences : after + 2 * sequences].tolist()),
        decode_sequences=message.decoding,
        logit_rows=logit_rows,
    )
