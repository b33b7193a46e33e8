"""The run's directory on disk: names (`_layout`), contents of a checkpoint (`_manifest`), and `_changes` to both."""
