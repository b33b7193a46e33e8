"""Layers: the functions of `functional` with parameters and buffers of PyTorch's names and shapes."""
