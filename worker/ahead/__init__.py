"""Steps that a device computes ahead of the host: their state, and the runner, for GPUs.

Imports what stands in ``worker/``; nothing there but ``worker/start.py`` imports this. Everything
here but the recording of graphs runs on a CPU, too, where tests compare it with ``HostRunner``.
"""
