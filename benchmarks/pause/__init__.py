"""What a snapshot costs the training that it is taken of: `make bench-pause`, `python -m benchmarks.pause --help`."""
