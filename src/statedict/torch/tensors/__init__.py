"""PyTorch tensors as leaves: dtypes, storages, memory, devices, and tensors that are made of several parts.

`_library` is the ArrayLibrary that the other rooms use.
"""
