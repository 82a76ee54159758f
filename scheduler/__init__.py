"""The scheduler: owns requests, the queue, KV blocks and metrics. One process.

Knows nothing of text or tensors.
"""
