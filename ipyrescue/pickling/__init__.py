"""Objects to streams and buffers, and back. Knows no paths and no IPython."""
