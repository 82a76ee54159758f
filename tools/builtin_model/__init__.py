"""Makes the built-in model: its training text, its tokenizer, its weights, its numbers.

Runs by hand (`python -m tools.builtin_model.train`), never inside a server process.
"""
