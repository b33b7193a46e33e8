"""StateDict, names and metadata, trees of values, and how they are shown."""
