"""Kernels for GPUs, in Triton: one verb a file, each beside a twin in torch under ``reference``.

Imported only where a GPU is used (``worker.kernels.select``), or by tests, in Triton's interpreter.
Kernels read shapes that do not change from constants and everything that does from the device: none
waits for the device, and those of a decoding step can be captured in a graph.
"""
