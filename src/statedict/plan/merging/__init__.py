"""Merge states into one: `_merge` is the table of methods, `_align` pairs the names, and each other file has a family of
methods.
"""
