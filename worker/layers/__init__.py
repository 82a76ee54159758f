"""What models are declared from. A layer knows its weights and the kernels it runs on.

It does not know where it runs, what a sequence is, or which model it belongs to.
"""
