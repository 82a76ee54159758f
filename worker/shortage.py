"""Is an error a lack of memory? Of the host, of a GPU, from Python or from deep inside torch.

Runs in the worker. A lack of memory ends the request that has met it, never the process.
"""

import gc

import torch

_WORDS = (
    "DefaultCPUAllocator", "bad_alloc", "out of memory", "out_of_memory",
    "Storage size calculation overflowed",
)  # fmt: skip
"""In the messages of torch's RuntimeErrors about memory of the host."""


def is_shortage(error: BaseException) -> bool:
    """Whether it says that there was no memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def relieve(error: Exception, device: torch.device) -> bool:
    """Whether memory was short; then what is held without need is given back."""
    if not is_shortage(error):
        return False
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return True
