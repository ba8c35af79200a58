"""Tensors of a snapshot in the formats that others read. Never unpickles, and needs neither torch nor NumPy."""
