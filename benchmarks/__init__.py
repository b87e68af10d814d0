"""Measured against raw libraries and peers in the same run: `make bench`, or `python -m benchmarks NAME...`."""
