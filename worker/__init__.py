"""The worker: owns tensors. One process per model shard; weights, KV cache, forward, sampling.

Knows nothing of HTTP, text or scheduling policy.
"""
