"""Zip archives, in both directions: the container of `.pt` and `.npz` files.

Reading: `_directory` finds the central directory and reads its entries (`_directory_columns` thousands at once),
`_members` compares the local headers with it, and `_archive` returns the members; `_unpacked` returns those of an archive
that was unpacked into a folder. Writing: `_layout` computes offsets,
`_write` makes the records.
"""
