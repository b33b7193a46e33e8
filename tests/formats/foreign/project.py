"""Classes of somebody's project, as training code has them. They are gone when their files are read."""

import argparse
import collections
import dataclasses
import enum
import typing

import torch


class Activation(enum.Enum):
    RELU = "relu"


@dataclasses.dataclass
class Config:
    width: int
    activation: Activation
    rates: list


class Point(typing.NamedTuple):
    x: float
    y: float


class AttributeDict(dict):
    """As Lightning's: a dict whose keys are attributes too."""

    def __getattr__(self, name):
        return self[name]


class Node:
    """As omegaconf's: a tree whose nodes know their parent, so that it is full of cycles."""

    def __init__(self, content, parent=None):
        self.__dict__["_parent"] = parent
        self.__dict__["_content"] = content

    def __getstate__(self):
        return dict(self.__dict__)

    def __setstate__(self, state):
        self.__dict__.update(state)


class Frame:
    """As pandas': blocks of NumPy arrays, made again by a function."""

    def __init__(self, columns):
        self.columns = columns

    def __reduce__(self):
        return rebuild_frame, (list(self.columns), list(self.columns.values())), {"attrs": {}}


def rebuild_frame(names, blocks):
    return Frame(dict(zip(names, blocks)))


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, torch.full((2,), 5.0)


class History(collections.deque):
    """A deque of one's own."""


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = Config(8, Activation.RELU, [0.1, 0.2])
        self.encoder = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())
        self.head = Head()
        self.tied = self.encoder[0]
        self.register_buffer("mask", torch.tril(torch.ones(3, 3)).bool())
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_buffer("absent", None)
        self.register_parameter("nothing", None)
        self.plain = torch.ones(4)
        self.encoder.register_forward_hook(watch)


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(2, 8))
        self.layers = torch.nn.ModuleList([torch.nn.Conv1d(2, 2, 3)])


def watch(module, args, output):
    """A hook."""


def namespace():
    return argparse.Namespace(lr=0.1, layers=[1, 2], config=Config(4, Activation.RELU, []))
