"""The bytes of tensors in a file, in both directions.

Reading: an `_extent` is the byte range of a storage, and its FileSource reads, maps and verifies it; `_neighbours`
merges reads of extents that are close together. Writing: `_named` takes a flat mapping of names to tensors, and `_pack`
decides which bytes are written for each. `_shape` refuses impossible shapes on both sides.
"""
