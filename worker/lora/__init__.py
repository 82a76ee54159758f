"""LoRA adapters in the worker: from their files to low-rank pairs beside the model's layers.

``checkpoint`` reads what PEFT has written, ``attach`` finds the layers. What a step does with pairs
is in ``worker/layers/adapted.py``, and how, in ``worker/kernels/low_rank.py``.
"""
