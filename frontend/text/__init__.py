"""Text of the front end: ids and back, stop strings, chat templates.

Knows neither HTTP nor sockets; imports neither torch nor transformers.
"""
