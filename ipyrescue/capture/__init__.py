"""Freezing a live process: when to do it, where the bytes wait, and who writes them. Works without IPython."""
