"""Libraries under load: each is driven in a process, and an environment, of its own.

These modules run in the peers' interpreters: they import the standard library, the library that
they drive, and ``bench.drivers.exchange``. Nothing else of Millrace.
"""
