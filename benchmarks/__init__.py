"""Benchmarks of the package and of alternatives. `make bench` runs the benchmarks and updates docs/speed.md."""
