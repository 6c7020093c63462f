"""Benchmarks of the package and of alternatives, for the README: `make bench`."""
