"""The commands of ``millrace``, one module each; ``registry.py`` lists them."""
