"""What a snapshot costs the training that it is taken of: `make bench-pause`, or `python -m benchmarks.pause --help`."""
