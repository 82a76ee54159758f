"""One file per surface; each resource reads a body, has it translated, runs it, and answers."""
