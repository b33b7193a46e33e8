"""Compare two states: `_diff` with its `_statistics`."""
