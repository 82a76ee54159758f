"""What happens around every route, one file for each concern.

The order is ``app.py``'s and matters: ids first, so that every answer has one; CORS before the
keys, so that preflight requests need none; then the keys.
"""
