"""Steps that a device computes ahead of the host: their state, and the runner, for GPUs.

Imports what stands in ``worker/``; only ``worker/start.py`` and the parts for several shards import
this. Everything here but the recording of graphs runs on a CPU, too, where tests compare it with
``HostRunner``.
"""
