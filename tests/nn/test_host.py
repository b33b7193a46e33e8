"""The Host of `statedict.nn` keeps the laws of HostSuite."""

from statedict import nn
from statedict.testing import HostSuite


class TestNnHost(HostSuite):
    host = nn.HOST

    def module(self):
        return nn.Module()

    def parameter(self, array):
        return nn.Parameter(array)

    def buffer(self, array):
        return nn.Buffer(array)

    def numpy(self, value):
        return value.data if isinstance(value, (nn.Parameter, nn.Buffer)) else value
