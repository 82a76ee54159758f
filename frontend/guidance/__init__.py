"""Grammars in front ends: what clients give becomes one checked llguidance grammar."""
