"""The figures to hold. `python -m benchmarks [name …] [--json]` measures them; see `__main__`."""
