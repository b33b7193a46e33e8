"""The bytes of tensors in a file, in both directions.

Reading: an Extent (`_extent`) is the byte range of a storage, which a FileSource (`_file_source`) reads, maps and verifies;
`_file_table` reads many at once, as rows of a table, together with the bytes between neighbours.

Writing: `_named` takes a flat mapping of names to tensors, and `_pack`
decides which bytes are written for each. `_shape` refuses impossible shapes on both sides.
"""
