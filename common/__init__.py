"""What all of Millrace's processes share: settings, messages, sockets, errors, logs.

Imports nothing of the other packages and no tensor library.
"""
