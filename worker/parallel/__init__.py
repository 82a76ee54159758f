"""Tensor parallelism: the processes of one replica, each with a part of every layer.

Shard 0 leads: it alone has an engine, and speaks with the scheduler and the front ends. The model
that its engine holds first tells the followers what is to be computed (one message per forward
pass) and then computes its own part; sums and gathered columns are the only other things that pass
between shards. So nothing outside this package knows of them but the layers.
"""
