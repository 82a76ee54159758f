"""The operations that a forward pass is made of, each in every implementation; ``select`` chooses.

A file is one verb; its tensors' shapes are in its docstrings. Kernels know tensors only: no layers,
no models, no cache objects.
"""
