"""Quantized weights: how checkpoints store them, a file per format, and how they are made at load.

Every format yields the one form that kernels take, ``kernels/reference/quantized.py``.
"""
