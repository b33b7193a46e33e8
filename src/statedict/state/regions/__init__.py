"""Boxes of tensors: leaves that read only a part of a tensor, tensors in parts, and placements on a mesh of ranks."""
