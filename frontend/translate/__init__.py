"""Each surface's request to one ``Order``; generated tokens to its answers and events."""
