"""Drafts: guesses of how sequences go on, which the model verifies several to a step.

``drafter`` is the seam for where they come from, ``ngrams`` the one source so far; ``speculator``
is what is kept of one sequence, ``speculation`` what an engine adds to its steps; ``verification``
chooses tokens as without drafts, and stops where a draft is not what was chosen.
"""
