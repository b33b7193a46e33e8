"""PyTorch tensors as leaves: dtypes, storages, memory, devices, and tensors with several parts (sparse, quantised, nested).

`_library` is the ArrayLibrary that the other rooms use.
"""
