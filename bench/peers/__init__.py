"""Ours and the peers side by side: the same machine, model files and load, in one run.

``__main__`` is the command. ``rows`` says what is measured, ``contenders`` what can be put under
load, ``registry`` who the peers are and how each is started, ``rounds`` in what order they take
turns, ``results`` what is kept, ``report`` the table and the plot, ``install`` how peers come here.
"""
