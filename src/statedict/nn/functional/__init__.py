"""`torch.nn.functional` by the same names, for inference, on arrays of any library; Parameters count as their arrays."""

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from ._activations import celu as celu
    from ._activations import elu as elu
    from ._activations import gelu as gelu
    from ._activations import glu as glu
    from ._activations import hardshrink as hardshrink
    from ._activations import hardsigmoid as hardsigmoid
    from ._activations import hardswish as hardswish
    from ._activations import hardtanh as hardtanh
    from ._activations import leaky_relu as leaky_relu
    from ._activations import log_softmax as log_softmax
    from ._activations import logsigmoid as logsigmoid
    from ._activations import mish as mish
    from ._activations import prelu as prelu
    from ._activations import relu as relu
    from ._activations import relu6 as relu6
    from ._activations import rrelu as rrelu
    from ._activations import selu as selu
    from ._activations import sigmoid as sigmoid
    from ._activations import silu as silu
    from ._activations import softmax as softmax
    from ._activations import softmin as softmin
    from ._activations import softplus as softplus
    from ._activations import softshrink as softshrink
    from ._activations import softsign as softsign
    from ._activations import tanh as tanh
    from ._activations import tanhshrink as tanhshrink
    from ._activations import threshold as threshold
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
else:  # unseen by type checkers, to which any name would be one that is there
    __all__, __getattr__ = lazily(
        __name__,
        {
            "_linear": "linear bilinear",
            "_activations": (
                "relu relu6 leaky_relu prelu rrelu elu selu celu gelu sigmoid tanh silu mish softplus logsigmoid "
                "softsign tanhshrink hardtanh hardsigmoid hardswish hardshrink softshrink threshold glu softmax "
                "softmin log_softmax"
            ),
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
