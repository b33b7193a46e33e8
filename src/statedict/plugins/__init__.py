"""Formats that are written as plugins are, with public names only, but come with this package: rows of the table name them."""
