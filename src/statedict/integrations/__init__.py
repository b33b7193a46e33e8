"""CheckpointManager in other training loops. Each file imports its framework; import the one that you need.

    lightning      a callback that resumes in the middle of an epoch, and a CheckpointIO plugin
    transformers   a Trainer, and a mix-in for its subclasses
    accelerate     a CheckpointManager of everything that an Accelerator prepared
    torchtitan     a checkpoint manager to be named in its configuration

ResumableLoader works in every loop: it saves and restores the position in the data.
"""

from ._loader import ResumableLoader

__all__ = ["ResumableLoader"]
