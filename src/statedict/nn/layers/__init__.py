"""Layers: the functions of `functional` with parameters and buffers of PyTorch's names and shapes."""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from ._attention import MultiheadAttention as MultiheadAttention
    from ._batchnorm import BatchNorm1d as BatchNorm1d
    from ._batchnorm import BatchNorm2d as BatchNorm2d
    from ._batchnorm import BatchNorm3d as BatchNorm3d
    from ._batchnorm import InstanceNorm1d as InstanceNorm1d
    from ._batchnorm import InstanceNorm2d as InstanceNorm2d
    from ._batchnorm import InstanceNorm3d as InstanceNorm3d
    from ._cells import GRUCell as GRUCell
    from ._cells import LSTMCell as LSTMCell
    from ._cells import RNNCell as RNNCell
    from ._containers import ModuleDict as ModuleDict
    from ._containers import ModuleList as ModuleList
    from ._containers import Sequential as Sequential
    from ._convolution import Conv1d as Conv1d
    from ._convolution import Conv2d as Conv2d
    from ._convolution import Conv3d as Conv3d
    from ._convolution import ConvTranspose1d as ConvTranspose1d
    from ._convolution import ConvTranspose2d as ConvTranspose2d
    from ._convolution import ConvTranspose3d as ConvTranspose3d
    from ._dropout import AlphaDropout as AlphaDropout
    from ._dropout import Dropout as Dropout
    from ._dropout import Dropout1d as Dropout1d
    from ._dropout import Dropout2d as Dropout2d
    from ._dropout import Dropout3d as Dropout3d
    from ._dropout import FeatureAlphaDropout as FeatureAlphaDropout
    from ._embedding import Embedding as Embedding
    from ._embedding import EmbeddingBag as EmbeddingBag
    from ._flatten import Flatten as Flatten
    from ._flatten import Unflatten as Unflatten
    from ._linear import Bilinear as Bilinear
    from ._linear import Identity as Identity
    from ._linear import Linear as Linear
    from ._normalization import GroupNorm as GroupNorm
    from ._normalization import LayerNorm as LayerNorm
    from ._normalization import LocalResponseNorm as LocalResponseNorm
    from ._normalization import RMSNorm as RMSNorm
    from ._padding import CircularPad1d as CircularPad1d
    from ._padding import CircularPad2d as CircularPad2d
    from ._padding import CircularPad3d as CircularPad3d
    from ._padding import ConstantPad1d as ConstantPad1d
    from ._padding import ConstantPad2d as ConstantPad2d
    from ._padding import ConstantPad3d as ConstantPad3d
    from ._padding import ReflectionPad1d as ReflectionPad1d
    from ._padding import ReflectionPad2d as ReflectionPad2d
    from ._padding import ReflectionPad3d as ReflectionPad3d
    from ._padding import ReplicationPad1d as ReplicationPad1d
    from ._padding import ReplicationPad2d as ReplicationPad2d
    from ._padding import ReplicationPad3d as ReplicationPad3d
    from ._padding import ZeroPad1d as ZeroPad1d
    from ._padding import ZeroPad2d as ZeroPad2d
    from ._padding import ZeroPad3d as ZeroPad3d
    from ._parameter_containers import ParameterDict as ParameterDict
    from ._parameter_containers import ParameterList as ParameterList
    from ._pooling import AdaptiveAvgPool1d as AdaptiveAvgPool1d
    from ._pooling import AdaptiveAvgPool2d as AdaptiveAvgPool2d
    from ._pooling import AdaptiveAvgPool3d as AdaptiveAvgPool3d
    from ._pooling import AdaptiveMaxPool1d as AdaptiveMaxPool1d
    from ._pooling import AdaptiveMaxPool2d as AdaptiveMaxPool2d
    from ._pooling import AdaptiveMaxPool3d as AdaptiveMaxPool3d
    from ._pooling import AvgPool1d as AvgPool1d
    from ._pooling import AvgPool2d as AvgPool2d
    from ._pooling import AvgPool3d as AvgPool3d
    from ._pooling import LPPool1d as LPPool1d
    from ._pooling import LPPool2d as LPPool2d
    from ._pooling import LPPool3d as LPPool3d
    from ._pooling import MaxPool1d as MaxPool1d
    from ._pooling import MaxPool2d as MaxPool2d
    from ._pooling import MaxPool3d as MaxPool3d
    from ._rectifiers import Hardshrink as Hardshrink
    from ._rectifiers import Hardsigmoid as Hardsigmoid
    from ._rectifiers import Hardswish as Hardswish
    from ._rectifiers import Hardtanh as Hardtanh
    from ._rectifiers import LeakyReLU as LeakyReLU
    from ._rectifiers import PReLU as PReLU
    from ._rectifiers import ReLU as ReLU
    from ._rectifiers import ReLU6 as ReLU6
    from ._rectifiers import RReLU as RReLU
    from ._rectifiers import Softshrink as Softshrink
    from ._rectifiers import Threshold as Threshold
    from ._recurrent import GRU as GRU
    from ._recurrent import LSTM as LSTM
    from ._recurrent import RNN as RNN
    from ._recurrent import RNNBase as RNNBase
    from ._smooth import CELU as CELU
    from ._smooth import ELU as ELU
    from ._smooth import GELU as GELU
    from ._smooth import GLU as GLU
    from ._smooth import SELU as SELU
    from ._smooth import LogSigmoid as LogSigmoid
    from ._smooth import Mish as Mish
    from ._smooth import Sigmoid as Sigmoid
    from ._smooth import SiLU as SiLU
    from ._smooth import Softplus as Softplus
    from ._smooth import Softsign as Softsign
    from ._smooth import Tanh as Tanh
    from ._smooth import Tanhshrink as Tanhshrink
    from ._softmax import LogSoftmax as LogSoftmax
    from ._softmax import Softmax as Softmax
    from ._softmax import Softmax2d as Softmax2d
    from ._softmax import Softmin as Softmin
    from ._transformer import Transformer as Transformer
    from ._transformer import TransformerDecoder as TransformerDecoder
    from ._transformer import TransformerDecoderLayer as TransformerDecoderLayer
    from ._transformer import TransformerEncoder as TransformerEncoder
    from ._transformer import TransformerEncoderLayer as TransformerEncoderLayer
else:  # hidden from type checkers, which would otherwise accept any name
    __all__, __getattr__ = lazily(
        __name__,
        {
            "_attention": "MultiheadAttention",
            "_batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d InstanceNorm3d",
            "_cells": "RNNCell LSTMCell GRUCell",
            "_containers": "Sequential ModuleList ModuleDict",
            "_convolution": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
            "_dropout": "Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout",
            "_embedding": "Embedding EmbeddingBag",
            "_flatten": "Flatten Unflatten",
            "_linear": "Identity Linear Bilinear",
            "_normalization": "LayerNorm RMSNorm GroupNorm LocalResponseNorm",
            "_padding": (
                "ConstantPad1d ConstantPad2d ConstantPad3d ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d "
                "ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d "
                "CircularPad2d CircularPad3d"
            ),
            "_parameter_containers": "ParameterList ParameterDict",
            "_pooling": (
                "MaxPool1d MaxPool2d MaxPool3d AvgPool1d AvgPool2d AvgPool3d LPPool1d LPPool2d LPPool3d "
                "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d "
                "AdaptiveMaxPool3d"
            ),
            "_recurrent": "RNNBase RNN LSTM GRU",
            "_rectifiers": "ReLU ReLU6 LeakyReLU PReLU RReLU Hardtanh Hardsigmoid Hardswish Hardshrink Softshrink Threshold",
            "_smooth": "ELU CELU SELU GELU SiLU Mish GLU Sigmoid LogSigmoid Tanh Tanhshrink Softsign Softplus",
            "_softmax": "Softmax Softmin LogSoftmax Softmax2d",
            "_transformer": (
                "TransformerEncoderLayer TransformerDecoderLayer TransformerEncoder TransformerDecoder Transformer"
            ),
        },
    )
