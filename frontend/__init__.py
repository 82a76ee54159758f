"""The front end: owns text. HTTP, validation, tokenization, chat templates, SSE.

Knows nothing of tensors or scheduling policy.
"""
