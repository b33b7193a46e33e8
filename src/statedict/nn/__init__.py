"""PyTorch's `nn` without PyTorch: modules with PyTorch's state dicts, on NumPy or any array API library.

    from statedict import nn                     # instead of: from torch import nn

A class written for `torch.nn` works after changing the import: names, shapes, default settings, ranges of initial weights
and state dicts are the same. For inference: there is no autograd. To train, `functional_call` turns a module into a function
that `jax.grad` can differentiate, and `optim` applies given gradients.

In the examples of this package, `nn` is imported as above, and `np` is NumPy.
"""

from typing import TYPE_CHECKING

from . import layers as _layers
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
    from .layers import CELU as CELU
    from .layers import ELU as ELU
    from .layers import GELU as GELU
    from .layers import GLU as GLU
    from .layers import GRU as GRU
    from .layers import LSTM as LSTM
    from .layers import RNN as RNN
    from .layers import SELU as SELU
    from .layers import AdaptiveAvgPool1d as AdaptiveAvgPool1d
    from .layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
    from .layers import AdaptiveAvgPool3d as AdaptiveAvgPool3d
    from .layers import AdaptiveMaxPool1d as AdaptiveMaxPool1d
    from .layers import AdaptiveMaxPool2d as AdaptiveMaxPool2d
    from .layers import AdaptiveMaxPool3d as AdaptiveMaxPool3d
    from .layers import AlphaDropout as AlphaDropout
    from .layers import AvgPool1d as AvgPool1d
    from .layers import AvgPool2d as AvgPool2d
    from .layers import AvgPool3d as AvgPool3d
    from .layers import BatchNorm1d as BatchNorm1d
    from .layers import BatchNorm2d as BatchNorm2d
    from .layers import BatchNorm3d as BatchNorm3d
    from .layers import Bilinear as Bilinear
    from .layers import CircularPad1d as CircularPad1d
    from .layers import CircularPad2d as CircularPad2d
    from .layers import CircularPad3d as CircularPad3d
    from .layers import ConstantPad1d as ConstantPad1d
    from .layers import ConstantPad2d as ConstantPad2d
    from .layers import ConstantPad3d as ConstantPad3d
    from .layers import Conv1d as Conv1d
    from .layers import Conv2d as Conv2d
    from .layers import Conv3d as Conv3d
    from .layers import ConvTranspose1d as ConvTranspose1d
    from .layers import ConvTranspose2d as ConvTranspose2d
    from .layers import ConvTranspose3d as ConvTranspose3d
    from .layers import Dropout as Dropout
    from .layers import Dropout1d as Dropout1d
    from .layers import Dropout2d as Dropout2d
    from .layers import Dropout3d as Dropout3d
    from .layers import Embedding as Embedding
    from .layers import EmbeddingBag as EmbeddingBag
    from .layers import FeatureAlphaDropout as FeatureAlphaDropout
    from .layers import Flatten as Flatten
    from .layers import GroupNorm as GroupNorm
    from .layers import GRUCell as GRUCell
    from .layers import Hardshrink as Hardshrink
    from .layers import Hardsigmoid as Hardsigmoid
    from .layers import Hardswish as Hardswish
    from .layers import Hardtanh as Hardtanh
    from .layers import Identity as Identity
    from .layers import InstanceNorm1d as InstanceNorm1d
    from .layers import InstanceNorm2d as InstanceNorm2d
    from .layers import InstanceNorm3d as InstanceNorm3d
    from .layers import LayerNorm as LayerNorm
    from .layers import LeakyReLU as LeakyReLU
    from .layers import Linear as Linear
    from .layers import LocalResponseNorm as LocalResponseNorm
    from .layers import LogSigmoid as LogSigmoid
    from .layers import LogSoftmax as LogSoftmax
    from .layers import LPPool1d as LPPool1d
    from .layers import LPPool2d as LPPool2d
    from .layers import LPPool3d as LPPool3d
    from .layers import LSTMCell as LSTMCell
    from .layers import MaxPool1d as MaxPool1d
    from .layers import MaxPool2d as MaxPool2d
    from .layers import MaxPool3d as MaxPool3d
    from .layers import Mish as Mish
    from .layers import ModuleDict as ModuleDict
    from .layers import ModuleList as ModuleList
    from .layers import MultiheadAttention as MultiheadAttention
    from .layers import ParameterDict as ParameterDict
    from .layers import ParameterList as ParameterList
    from .layers import PReLU as PReLU
    from .layers import ReflectionPad1d as ReflectionPad1d
    from .layers import ReflectionPad2d as ReflectionPad2d
    from .layers import ReflectionPad3d as ReflectionPad3d
    from .layers import ReLU as ReLU
    from .layers import ReLU6 as ReLU6
    from .layers import ReplicationPad1d as ReplicationPad1d
    from .layers import ReplicationPad2d as ReplicationPad2d
    from .layers import ReplicationPad3d as ReplicationPad3d
    from .layers import RMSNorm as RMSNorm
    from .layers import RNNBase as RNNBase
    from .layers import RNNCell as RNNCell
    from .layers import RReLU as RReLU
    from .layers import Sequential as Sequential
    from .layers import Sigmoid as Sigmoid
    from .layers import SiLU as SiLU
    from .layers import Softmax as Softmax
    from .layers import Softmax2d as Softmax2d
    from .layers import Softmin as Softmin
    from .layers import Softplus as Softplus
    from .layers import Softshrink as Softshrink
    from .layers import Softsign as Softsign
    from .layers import Tanh as Tanh
    from .layers import Tanhshrink as Tanhshrink
    from .layers import Threshold as Threshold
    from .layers import Transformer as Transformer
    from .layers import TransformerDecoder as TransformerDecoder
    from .layers import TransformerDecoderLayer as TransformerDecoderLayer
    from .layers import TransformerEncoder as TransformerEncoder
    from .layers import TransformerEncoderLayer as TransformerEncoderLayer
    from .layers import Unflatten as Unflatten
    from .layers import ZeroPad1d as ZeroPad1d
    from .layers import ZeroPad2d as ZeroPad2d
    from .layers import ZeroPad3d as ZeroPad3d
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
            "layers": " ".join(_layers.__all__),
        },
    )
