"""The run's directory on disk: its checkpoints (`_layout`, `_catalogue`), the names of files in them (`_names`), `_changes`.

What a checkpoint contains is described by its manifest (`statedict.formats.runs`).
"""
