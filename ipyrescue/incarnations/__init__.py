"""What the life records of a notebook's kernels mean: who died, why, what is left, what to offer. Never unpickles."""
