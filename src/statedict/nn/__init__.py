"""PyTorch's `nn` without PyTorch: modules with PyTorch's state dicts, on NumPy or any array API library.

    from statedict import nn                     # instead of: from torch import nn

A class written for `torch.nn` works after changing the import: names, shapes, default settings, ranges of initial weights
and state dicts are the same. For inference: there is no autograd. To train, `functional_call` turns a module into a function
that `jax.grad` can differentiate, and `optim` applies given gradients.

In the examples of this package, `nn` is imported as above, `np` is NumPy, and the functions of `nn.functional`, `nn.init`
and `nn.utils.rnn` are imported by their names.
"""

from typing import TYPE_CHECKING

from ._lazy import lazily as _lazily

if TYPE_CHECKING:
    from . import functional as functional
    from . import init as init
    from . import optim as optim
    from . import utils as utils
    from ._functional_call import functional_call as functional_call
    from ._generator import manual_seed as manual_seed
    from ._host import HOST as HOST
    from ._host import VARIABLES as VARIABLES
    from ._module import Module as Module
    from ._parameter import Buffer as Buffer
    from ._parameter import Parameter as Parameter
    from .layers._attention import MultiheadAttention as MultiheadAttention
    from .layers._batchnorm import BatchNorm1d as BatchNorm1d
    from .layers._batchnorm import BatchNorm2d as BatchNorm2d
    from .layers._batchnorm import BatchNorm3d as BatchNorm3d
    from .layers._batchnorm import InstanceNorm1d as InstanceNorm1d
    from .layers._batchnorm import InstanceNorm2d as InstanceNorm2d
    from .layers._batchnorm import InstanceNorm3d as InstanceNorm3d
    from .layers._cells import GRUCell as GRUCell
    from .layers._cells import LSTMCell as LSTMCell
    from .layers._cells import RNNCell as RNNCell
    from .layers._containers import ModuleDict as ModuleDict
    from .layers._containers import ModuleList as ModuleList
    from .layers._containers import Sequential as Sequential
    from .layers._convolution import Conv1d as Conv1d
    from .layers._convolution import Conv2d as Conv2d
    from .layers._convolution import Conv3d as Conv3d
    from .layers._convolution import ConvTranspose1d as ConvTranspose1d
    from .layers._convolution import ConvTranspose2d as ConvTranspose2d
    from .layers._convolution import ConvTranspose3d as ConvTranspose3d
    from .layers._dropout import AlphaDropout as AlphaDropout
    from .layers._dropout import Dropout as Dropout
    from .layers._dropout import Dropout1d as Dropout1d
    from .layers._dropout import Dropout2d as Dropout2d
    from .layers._dropout import Dropout3d as Dropout3d
    from .layers._dropout import FeatureAlphaDropout as FeatureAlphaDropout
    from .layers._embedding import Embedding as Embedding
    from .layers._embedding import EmbeddingBag as EmbeddingBag
    from .layers._flatten import Flatten as Flatten
    from .layers._flatten import Unflatten as Unflatten
    from .layers._linear import Bilinear as Bilinear
    from .layers._linear import Identity as Identity
    from .layers._linear import Linear as Linear
    from .layers._normalization import GroupNorm as GroupNorm
    from .layers._normalization import LayerNorm as LayerNorm
    from .layers._normalization import LocalResponseNorm as LocalResponseNorm
    from .layers._normalization import RMSNorm as RMSNorm
    from .layers._padding import CircularPad1d as CircularPad1d
    from .layers._padding import CircularPad2d as CircularPad2d
    from .layers._padding import CircularPad3d as CircularPad3d
    from .layers._padding import ConstantPad1d as ConstantPad1d
    from .layers._padding import ConstantPad2d as ConstantPad2d
    from .layers._padding import ConstantPad3d as ConstantPad3d
    from .layers._padding import ReflectionPad1d as ReflectionPad1d
    from .layers._padding import ReflectionPad2d as ReflectionPad2d
    from .layers._padding import ReflectionPad3d as ReflectionPad3d
    from .layers._padding import ReplicationPad1d as ReplicationPad1d
    from .layers._padding import ReplicationPad2d as ReplicationPad2d
    from .layers._padding import ReplicationPad3d as ReplicationPad3d
    from .layers._padding import ZeroPad1d as ZeroPad1d
    from .layers._padding import ZeroPad2d as ZeroPad2d
    from .layers._padding import ZeroPad3d as ZeroPad3d
    from .layers._parameter_containers import ParameterDict as ParameterDict
    from .layers._parameter_containers import ParameterList as ParameterList
    from .layers._pooling import AdaptiveAvgPool1d as AdaptiveAvgPool1d
    from .layers._pooling import AdaptiveAvgPool2d as AdaptiveAvgPool2d
    from .layers._pooling import AdaptiveAvgPool3d as AdaptiveAvgPool3d
    from .layers._pooling import AdaptiveMaxPool1d as AdaptiveMaxPool1d
    from .layers._pooling import AdaptiveMaxPool2d as AdaptiveMaxPool2d
    from .layers._pooling import AdaptiveMaxPool3d as AdaptiveMaxPool3d
    from .layers._pooling import AvgPool1d as AvgPool1d
    from .layers._pooling import AvgPool2d as AvgPool2d
    from .layers._pooling import AvgPool3d as AvgPool3d
    from .layers._pooling import LPPool1d as LPPool1d
    from .layers._pooling import LPPool2d as LPPool2d
    from .layers._pooling import LPPool3d as LPPool3d
    from .layers._pooling import MaxPool1d as MaxPool1d
    from .layers._pooling import MaxPool2d as MaxPool2d
    from .layers._pooling import MaxPool3d as MaxPool3d
    from .layers._rectifiers import Hardshrink as Hardshrink
    from .layers._rectifiers import Hardsigmoid as Hardsigmoid
    from .layers._rectifiers import Hardswish as Hardswish
    from .layers._rectifiers import Hardtanh as Hardtanh
    from .layers._rectifiers import LeakyReLU as LeakyReLU
    from .layers._rectifiers import PReLU as PReLU
    from .layers._rectifiers import ReLU as ReLU
    from .layers._rectifiers import ReLU6 as ReLU6
    from .layers._rectifiers import RReLU as RReLU
    from .layers._rectifiers import Softshrink as Softshrink
    from .layers._rectifiers import Threshold as Threshold
    from .layers._recurrent import GRU as GRU
    from .layers._recurrent import LSTM as LSTM
    from .layers._recurrent import RNN as RNN
    from .layers._recurrent import RNNBase as RNNBase
    from .layers._smooth import CELU as CELU
    from .layers._smooth import ELU as ELU
    from .layers._smooth import GELU as GELU
    from .layers._smooth import GLU as GLU
    from .layers._smooth import SELU as SELU
    from .layers._smooth import LogSigmoid as LogSigmoid
    from .layers._smooth import Mish as Mish
    from .layers._smooth import Sigmoid as Sigmoid
    from .layers._smooth import SiLU as SiLU
    from .layers._smooth import Softplus as Softplus
    from .layers._smooth import Softsign as Softsign
    from .layers._smooth import Tanh as Tanh
    from .layers._smooth import Tanhshrink as Tanhshrink
    from .layers._softmax import LogSoftmax as LogSoftmax
    from .layers._softmax import Softmax as Softmax
    from .layers._softmax import Softmax2d as Softmax2d
    from .layers._softmax import Softmin as Softmin
    from .layers._transformer import Transformer as Transformer
    from .layers._transformer import TransformerDecoder as TransformerDecoder
    from .layers._transformer import TransformerDecoderLayer as TransformerDecoderLayer
    from .layers._transformer import TransformerEncoder as TransformerEncoder
    from .layers._transformer import TransformerEncoderLayer as TransformerEncoderLayer
else:  # hidden from type checkers, which would otherwise accept any name
    __all__, __getattr__ = _lazily(
        __name__,
        {
            "functional": "",
            "init": "",
            "optim": "",
            "utils": "",
            "_functional_call": "functional_call",
            "_generator": "manual_seed",
            "_host": "HOST VARIABLES",
            "_module": "Module",
            "_parameter": "Buffer Parameter",
            "layers._attention": "MultiheadAttention",
            "layers._batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d",
            "layers._cells": "RNNCell LSTMCell GRUCell",
            "layers._containers": "Sequential ModuleList ModuleDict",
            "layers._convolution": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
            "layers._dropout": "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout",
            "layers._embedding": "Embedding EmbeddingBag",
            "layers._flatten": "Flatten Unflatten",
            "layers._linear": "Identity Linear Bilinear",
            "layers._normalization": "LayerNorm RMSNorm GroupNorm LocalResponseNorm",
            "layers._padding": (
                "ConstantPad1d ConstantPad2d ConstantPad3d ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d "
                "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d "
                "CircularPad2d CircularPad3d"
            ),
            "layers._parameter_containers": "ParameterList ParameterDict",
            "layers._pooling": (
                "MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d LPPool3d "
                "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
                "AdaptiveMaxPool3d"
            ),
            "layers._recurrent": "RNNBase RNN LSTM GRU",
            "layers._rectifiers": (
                "ReLU ReLU6 LeakyReLU PReLU RReLU Hardtanh Hardsigmoid Hardswish Hardshrink Softshrink Threshold"
            ),
            "layers._smooth": "ELU CELU SELU GELU SiLU Mish GLU Sigmoid LogSigmoid Tanh Tanhshrink Softsign Softplus",
            "layers._softmax": "Softmax Softmin LogSoftmax Softmax2d",
            "layers._transformer": (
                "TransformerEncoderLayer TransformerDecoderLayer TransformerEncoder TransformerDecoder Transformer"
            ),
        },
    )
