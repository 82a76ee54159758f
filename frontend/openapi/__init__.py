"""The OpenAPI 3.1 document, made from the types that check requests and the types of answers.

``operations/`` is the one list of what this server does over HTTP. Runs in the front ends and,
as ``python -m frontend.openapi``, by itself; knows neither sockets nor settings.
"""
