"""What ONNX operators compute, as pure functions of shapes; counted as torch's are, see `operations`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from .formulas import attention, convolution, product
from .table import Shape

Attributes = Mapping[str, Any]
Shapes = Sequence[Shape]
"""Of an operator's inputs, () for those left out."""

_FREE = """
    Constant Identity Reshape Squeeze Unsqueeze Flatten Shape Size Dropout Optional OptionalGetElement
"""
_MOVE = """
    Transpose Concat Split Slice Gather GatherElements GatherND Scatter ScatterElements ScatterND Pad Expand
    Tile Cast CastLike DepthToSpace SpaceToDepth ConstantOfShape Range OneHot EyeLike Trilu ReverseSequence
    CenterCropPad Col2Im TensorScatter BitCast
    SplitToSequence SequenceAt SequenceConstruct SequenceInsert ConcatFromSequence
"""
_ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil
    Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf
    IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu
    Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu
    Where Xor QuantizeLinear DequantizeLinear QLinearAdd QLinearMul Bernoulli RandomNormal RandomNormalLike
    RandomUniform RandomUniformLike RotaryEmbedding
"""
_READS = """
    ArgMax ArgMin BatchNormalization CumProd CumSum DynamicQuantizeLinear GlobalAveragePool GlobalLpPool
    GlobalMaxPool GroupNormalization Hardmax InstanceNormalization LayerNormalization LogSoftmax
    LpNormalization MeanVarianceNormalization RMSNormalization ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax TopK
"""
_WINDOW = "AveragePool LpPool MaxPool"
_TAPS = {b"linear": 2, b"cubic": 4}  # along each axis that changes
_THREE = ("LSTM", "GRU", "RNN", "Attention")


def macs(op: str, shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    """Multiply-accumulates; 0 for what has none."""
    formula = _MACS.get(op)
    return formula(shapes, out, attributes) if formula else 0


def other_ops(op: str, shapes: Shapes, out: Shape, attributes: Attributes) -> int | None:
    """Element operations that are no multiply-accumulates; None where the operator is not known."""
    count = _OTHERS.get(op)
    return None if count is None else count(shapes, out, attributes)


def needed(op: str, inputs: int) -> int:
    """Of how many of its inputs the shapes must be known."""
    if op in _MACS:
        return min(
            inputs,
            {"Einsum": inputs, "QLinearConv": 4, "QLinearMatMul": 4, "Gemm": 1}.get(op, 3 if op in _THREE else 2),
        )
    return 0 if moves(op) else 1


def moves(op: str) -> bool:
    """Whether it computes nothing and only moves numbers."""
    return op in _MOVE.split()


def is_free(op: str) -> bool:
    """Whether it only looks at its input in another way."""
    return op in _FREE.split()


NOT_LEARNT: dict[str, frozenset[int]] = {
    **{op: frozenset({1, 2, 3}) for op in ("Clip", "Pad", "Resize", "Upsample", "Slice", "Range", "OneHot")},
    **{op: frozenset({1, 2}) for op in ("QuantizeLinear", "DequantizeLinear")},
    **{op: frozenset({1, 2, 4, 5, 6, 7}) for op in ("QLinearConv", "QLinearMatMul")},
    **{op: frozenset({2, 3}) for op in ("ConvInteger", "MatMulInteger")},
}
"""Which inputs of an operator are settings or scales, and no parameters though the file keeps them beside those."""
STATISTICS: dict[str, frozenset[int]] = {"BatchNormalization": frozenset({3, 4})}
"""Which inputs are buffers."""
WEIGHT = {"QLinearConv": 3, "QLinearMatMul": 3}
"""Which input is the kernel, where it is not the second."""


def _conv(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return convolution(shapes[0], shapes[1], out)


def _quantised_conv(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return convolution(shapes[0], shapes[3], out)


def _transposed(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return convolution(shapes[0], shapes[1], out, transposed=True)


def _product(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    """As numpy multiplies matrices: the batches of both are stretched to the result's."""
    a, b = shapes[0], shapes[1]
    return prod(out) * a[-1] if len(a) > 1 and len(b) > 1 else product(a, b) if len(b) < 2 else prod(b)


def _quantised_product(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return _product((shapes[0], shapes[3]), out, attributes)


def _gemm(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return prod(out) * shapes[0][0 if attributes.get("transA") else 1]


def _recurrent(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    """X (T, N, I) or (N, T, I), W (directions, gates · H, I), R (directions, gates · H, H)."""
    return shapes[0][0] * shapes[0][1] * (prod(shapes[1]) + prod(shapes[2]))


def _attention(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    query, key, value = shapes[:3]
    if len(query) == 3:  # (N, L, heads · E): the heads are told by attributes
        heads, few = attributes["q_num_heads"], attributes["kv_num_heads"]
        query = (query[0], heads, query[1], query[2] // heads)
        key, value = ((one[0], few, one[1], one[2] // few) for one in (key, value))
    if len(shapes) > 4 and shapes[4]:  # keys of earlier steps come first
        key = (*key[:2], key[2] + shapes[4][2], key[3])
    return attention(query, key, value)


def _einsum(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    """From left to right, two operands at a time, each first summed over what only it has and nobody needs."""
    equation = attributes["equation"].decode().replace(" ", "")
    inputs, arrow, result = equation.partition("->")
    terms = [_spelt(term, len(shape)) for term, shape in zip(inputs.split(","), shapes)]
    result = _spelt(result, len(out)) if arrow else "".join(c for c in set(inputs) if inputs.count(c) == 1)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes):
        for letter, size in zip(term, shape):
            sizes[letter] = max(size, sizes.get(letter, 1))  # those under an ellipsis may be stretched
    total, left = 0, terms[0]
    for i, right in enumerate(terms[1:], 2):
        later = set(result).union(*terms[i:])
        met = (set(left) & (set(right) | later)) | (set(right) & (set(left) | later))
        total += prod(sizes[letter] for letter in met)
        left = "".join(met & later)
    return total


def _spelt(term: str, dims: int) -> str:
    """The term with letters for its ellipsis, counted from the right as broadcasting does."""
    before, dots, after = term.partition("...")
    hidden = dims - len(before) - len(after)
    return before + "".join(chr(0x100 + i) for i in reversed(range(hidden))) + after if dots else term


def _none(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return 0


def _written(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return prod(out)


def _read(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return prod(shapes[0])


def _window(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    return prod(out) * prod(attributes["kernel_shape"])


def _resize(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    taps = _TAPS.get(attributes.get("mode", b"nearest"))
    changed = sum(a != b for a, b in zip(shapes[0], out))
    return prod(out) * int(taps**changed) if taps else 0


def _scores(shapes: Shapes, out: Shape, attributes: Attributes) -> int:
    """The softmax inside attention: one for each score."""
    query, key = shapes[:2]
    heads = attributes["q_num_heads"] if len(query) == 3 else query[1]
    past = shapes[4][2] if len(shapes) > 4 and shapes[4] else 0
    return query[0] * heads * query[-2] * (key[-2] + past)


Formula = Callable[[Shapes, Shape, Attributes], int]
_MACS: dict[str, Formula] = {
    **dict.fromkeys(("Conv", "ConvInteger"), _conv),
    "QLinearConv": _quantised_conv,
    "ConvTranspose": _transposed,
    **dict.fromkeys(("MatMul", "MatMulInteger"), _product),
    "QLinearMatMul": _quantised_product,
    "Gemm": _gemm,
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    "Attention": _attention,
}
_OTHERS: dict[str, Formula] = {
    **dict.fromkeys((*_FREE.split(), *_MOVE.split(), *_MACS), _none),
    **dict.fromkeys(_ELEMENTWISE.split(), _written),
    **dict.fromkeys(_READS.split(), _read),
    **dict.fromkeys(_WINDOW.split(), _window),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Attention": _scores,
}
