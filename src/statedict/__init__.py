"""The state of a neural network as a value: capture it, copy it, select, rename, compare, save, load it, put it back."""
