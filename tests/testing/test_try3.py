import numpy as np, torch
from statedict import nn
from statedict.nn._host import HOST as NN
from statedict.torch.modules._host import HOST as TORCH
from statedict.testing import HostSuite

class TestNn(HostSuite):
    host = NN
    def module(self): return nn.Module()
    def parameter(self, array): return nn.Parameter(array)
    def buffer(self, array): return nn.Buffer(array)
    def numpy(self, value): return getattr(value, "data", value) if isinstance(value, nn.Parameter | nn.Buffer) else value

class TestTorch(HostSuite):
    host = TORCH
    def module(self): return torch.nn.Module()
    def parameter(self, array): return torch.nn.Parameter(torch.from_numpy(array), requires_grad=array.dtype.kind=="f")
    def buffer(self, array): return torch.from_numpy(array)
    def numpy(self, value): return value.detach().numpy()
