"""A run's checkpoints inside other people's training loops. Each file imports its framework; import the one you need.

    lightning      a callback that resumes in the middle of an epoch, and a CheckpointIO plugin
    transformers   a Trainer, and a mix-in for its subclasses
    accelerate     a CheckpointManager of everything that an Accelerator prepared
    torchtitan     a checkpoint manager to be named in its configuration

ResumableLoader is for every loop: the position in the data, as an object with a state.
"""

from ._loader import ResumableLoader

__all__ = ["ResumableLoader"]
