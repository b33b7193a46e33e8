"""How long saving and loading take, here and in peers, in one run: `python -m benchmarks`."""
