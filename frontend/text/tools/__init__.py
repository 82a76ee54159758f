"""Tool calls in text: how models write them, how they are read and demanded."""
