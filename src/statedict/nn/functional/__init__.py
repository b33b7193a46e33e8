"""The functions of `torch.nn.functional`, for inference, on arrays of any library and on Parameters."""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from ._adaptive_pooling import adaptive_avg_pool1d as adaptive_avg_pool1d
    from ._adaptive_pooling import adaptive_avg_pool2d as adaptive_avg_pool2d
    from ._adaptive_pooling import adaptive_avg_pool3d as adaptive_avg_pool3d
    from ._adaptive_pooling import adaptive_max_pool1d as adaptive_max_pool1d
    from ._adaptive_pooling import adaptive_max_pool2d as adaptive_max_pool2d
    from ._adaptive_pooling import adaptive_max_pool3d as adaptive_max_pool3d
    from ._attention import multi_head_attention_forward as multi_head_attention_forward
    from ._attention import scaled_dot_product_attention as scaled_dot_product_attention
    from ._convolution import conv1d as conv1d
    from ._convolution import conv2d as conv2d
    from ._convolution import conv3d as conv3d
    from ._convolution import conv_transpose1d as conv_transpose1d
    from ._convolution import conv_transpose2d as conv_transpose2d
    from ._convolution import conv_transpose3d as conv_transpose3d
    from ._dropout import alpha_dropout as alpha_dropout
    from ._dropout import dropout as dropout
    from ._dropout import dropout1d as dropout1d
    from ._dropout import dropout2d as dropout2d
    from ._dropout import dropout3d as dropout3d
    from ._dropout import feature_alpha_dropout as feature_alpha_dropout
    from ._embedding import embedding as embedding
    from ._embedding import embedding_bag as embedding_bag
    from ._embedding import one_hot as one_hot
    from ._linear import bilinear as bilinear
    from ._linear import linear as linear
    from ._normalization import batch_norm as batch_norm
    from ._normalization import cosine_similarity as cosine_similarity
    from ._normalization import group_norm as group_norm
    from ._normalization import instance_norm as instance_norm
    from ._normalization import layer_norm as layer_norm
    from ._normalization import local_response_norm as local_response_norm
    from ._normalization import normalize as normalize
    from ._normalization import rms_norm as rms_norm
    from ._padding import pad as pad
    from ._pooling import avg_pool1d as avg_pool1d
    from ._pooling import avg_pool2d as avg_pool2d
    from ._pooling import avg_pool3d as avg_pool3d
    from ._pooling import lp_pool1d as lp_pool1d
    from ._pooling import lp_pool2d as lp_pool2d
    from ._pooling import lp_pool3d as lp_pool3d
    from ._pooling import max_pool1d as max_pool1d
    from ._pooling import max_pool2d as max_pool2d
    from ._pooling import max_pool3d as max_pool3d
    from ._rectifiers import hardshrink as hardshrink
    from ._rectifiers import hardsigmoid as hardsigmoid
    from ._rectifiers import hardswish as hardswish
    from ._rectifiers import hardtanh as hardtanh
    from ._rectifiers import leaky_relu as leaky_relu
    from ._rectifiers import prelu as prelu
    from ._rectifiers import relu as relu
    from ._rectifiers import relu6 as relu6
    from ._rectifiers import rrelu as rrelu
    from ._rectifiers import softshrink as softshrink
    from ._rectifiers import threshold as threshold
    from ._smooth import celu as celu
    from ._smooth import elu as elu
    from ._smooth import gelu as gelu
    from ._smooth import glu as glu
    from ._smooth import logsigmoid as logsigmoid
    from ._smooth import mish as mish
    from ._smooth import selu as selu
    from ._smooth import sigmoid as sigmoid
    from ._smooth import silu as silu
    from ._smooth import softplus as softplus
    from ._smooth import softsign as softsign
    from ._smooth import tanh as tanh
    from ._smooth import tanhshrink as tanhshrink
    from ._softmax import log_softmax as log_softmax
    from ._softmax import softmax as softmax
    from ._softmax import softmin as softmin
else:  # hidden from type checkers, which would otherwise accept any name
    __all__, __getattr__ = lazily(
        __name__,
        {
            "_linear": "linear bilinear",
            "_rectifiers": (
                "relu relu6 leaky_relu prelu rrelu hardtanh hardsigmoid hardswish hardshrink softshrink threshold"
            ),
            "_smooth": "elu celu selu gelu silu mish glu sigmoid logsigmoid tanh tanhshrink softsign softplus",
            "_softmax": "softmax softmin log_softmax",
            "_convolution": "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
            "_pooling": "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d lp_pool3d",
            "_adaptive_pooling": (
                "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
                "adaptive_max_pool3d"
            ),
            "_padding": "pad",
            "_normalization": (
                "batch_norm instance_norm layer_norm rms_norm group_norm local_response_norm normalize cosine_similarity"
            ),
            "_dropout": "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout",
            "_embedding": "embedding embedding_bag one_hot",
            "_attention": "scaled_dot_product_attention multi_head_attention_forward",
        },
    )
