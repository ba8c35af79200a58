"""Side-by-side measurements that a reader can run: `make bench`, or `python -m benchmarks --help`."""
