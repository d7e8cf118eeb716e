"""ONNX graphs count to what the torch networks count to that they were made from, or to the count by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import convlite
from convlite.analyse import analyse, priced, read_onnx, read_spec
from convlite.errors import InputError
from convlite.kinds import Separable

onnx = pytest.importorskip("onnx")
FLOAT, UINT8, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.INT32
WRITES = {"QLinearConv": UINT8, "ConvInteger": INT32, "MatMulInteger": INT32}


def graph(nodes, inputs, weights=None, opset=23):
    """A model of nodes (op, inputs, outputs, attributes); inputs are name → (type, sizes), weights name → array."""
    made = [onnx.helper.make_node(op, i.split(), o.split(), **attributes) for op, i, o, attributes in nodes]
    value = onnx.helper.make_tensor_value_info
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            made,
            "made",
            [value(name, kind, sizes) for name, (kind, sizes) in inputs.items()],
            [value("y", WRITES.get(nodes[-1][0], FLOAT), None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )


@pytest.fixture
def count(tmp_path):
    def counted(model, *inputs, batch=1):
        onnx.save(model, tmp_path / "a.onnx")
        return read_onnx(tmp_path / "a.onnx", [read_spec(one) for one in inputs], batch)

    return counted


def zeros(*sizes, kind=np.float32):
    return np.zeros(sizes, kind)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_convolution_costs_what_torchs_does(tmp_path_factory, data):
    dims, transposed = data.draw(st.integers(1, 3)), data.draw(st.booleans())
    groups, size = data.draw(st.integers(1, 3)), st.lists(st.integers(1, 3), min_size=dims, max_size=dims)
    kernel, stride, dilation = data.draw(size), data.draw(size), data.draw(size)
    pads = [data.draw(st.integers(0, (k - 1) * d // 2)) for k, d in zip(kernel, dilation)]
    c, m = groups * data.draw(st.integers(1, 3)), groups * data.draw(st.integers(1, 3))
    bias, batch = data.draw(st.booleans()), data.draw(st.integers(1, 2))
    sizes = [data.draw(st.integers(7, 9)) for _ in range(dims)]
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d) if transposed else (
        nn.Conv1d, nn.Conv2d, nn.Conv3d
    )  # fmt: skip
    net = kinds[dims - 1](
        c, m, tuple(kernel), tuple(stride), tuple(pads), groups=groups, bias=bias, dilation=tuple(dilation)
    )
    weights = {name: value.detach().numpy() for name, value in net.named_parameters()}
    model = graph(
        [
            (
                "ConvTranspose" if transposed else "Conv",
                "x weight bias" if bias else "x weight",
                "y",
                {"strides": stride, "dilations": dilation, "pads": pads * 2, "group": groups},
            )
        ],
        {"x": (FLOAT, ["n", c, *sizes])},
        weights,
    )
    file = tmp_path_factory.mktemp("graphs") / "a.onnx"
    onnx.save(model, file)
    found, real = read_onnx(file, batch=batch), analyse(net, torch.rand(batch, c, *sizes))
    assert (found.macs, found.params) == (real.macs, real.params)
    (row,), (true,) = found.rows, real.rows
    assert (row.op, row.bytes, row.output_shape, row.conv) == (true.op, true.bytes, true.output_shape, true.conv)


X = {"x": (FLOAT, [2, 3, 8, 8])}
BY_HAND = {
    "gemm": ([("Gemm", "x w b", "y", {"transB": 1})], {"x": (FLOAT, [5, 6])},
             {"w": zeros(4, 6), "b": zeros(4)}, 28, 120),
    "gemm, first transposed": ([("Gemm", "x w", "y", {"transA": 1})], {"x": (FLOAT, [6, 5])},
                               {"w": zeros(6, 4)}, 24, 120),
    "matmul": ([("MatMul", "x w", "y", {})], {"x": (FLOAT, [2, 5, 6])}, {"w": zeros(6, 4)}, 24, 240),
    "matmul, batches stretched": (
        [("MatMul", "x z", "y", {})], {"x": (FLOAT, [1, 5, 6]), "z": (FLOAT, [7, 6, 4])}, {}, 0, 7 * 120,
    ),
    "matrix times vector": ([("MatMul", "x w", "y", {})], {"x": (FLOAT, [2, 5, 6])}, {"w": zeros(6)}, 6, 60),
    "vector times matrices": ([("MatMul", "w x", "y", {})], {"x": (FLOAT, [2, 6, 5])}, {"w": zeros(6)}, 6, 60),
    "einsum": ([("Einsum", "x z", "y", {"equation": "nij,nkj->nik"})],
               {"x": (FLOAT, [2, 3, 4]), "z": (FLOAT, [2, 5, 4])}, {}, 0, 2 * 3 * 4 * 5),
    "einsum under an ellipsis": ([("Einsum", "x z", "y", {"equation": "...ij, ...jk -> ...ik"})],
                                 {"x": (FLOAT, [7, 3, 4]), "z": (FLOAT, [1, 4, 5])}, {}, 0, 7 * 60),
    "einsum of three": ([("Einsum", "x z w", "y", {"equation": "ij,jk,kl"})],
                        {"x": (FLOAT, [3, 4]), "z": (FLOAT, [4, 5])}, {"w": zeros(5, 6)}, 30, 60 + 90),
    "einsum that sums first": ([("Einsum", "x z", "y", {"equation": "ijm,jk->ik"})],
                               {"x": (FLOAT, [3, 4, 9]), "z": (FLOAT, [4, 5])}, {}, 0, 60),
    "lstm": ([("LSTM", "x w r", "y h", {"hidden_size": 5})], {"x": (FLOAT, [7, 1, 3])},
             {"w": zeros(1, 20, 3), "r": zeros(1, 20, 5)}, 160, 7 * 160),
    "gru both ways": ([("GRU", "x w r", "y h", {"hidden_size": 5, "direction": "bidirectional"})],
                      {"x": (FLOAT, [7, 2, 3])}, {"w": zeros(2, 15, 3), "r": zeros(2, 15, 5)}, 240, 7 * 2 * 240),
    "attention": ([("Attention", "x z v", "y", {})],
                  {"x": (FLOAT, [1, 4, 10, 8]), "z": (FLOAT, [1, 4, 6, 8]), "v": (FLOAT, [1, 4, 6, 5])}, {}, 0,
                  4 * 10 * 6 * 13),
    "attention with heads told": ([("Attention", "x z v", "y", {"q_num_heads": 4, "kv_num_heads": 2})],
                                  {"x": (FLOAT, [1, 10, 32]), "z": (FLOAT, [1, 6, 16]), "v": (FLOAT, [1, 6, 16])},
                                  {}, 0, 4 * 10 * 6 * 16),
    "quantised convolution": (
        [("QLinearConv", "x s z w s zw s z b", "y", {"pads": [1, 1, 1, 1]})], {"x": (UINT8, [1, 3, 8, 8])},
        {"w": zeros(4, 3, 3, 3, kind=np.int8), "s": np.float32(1), "z": np.uint8(0), "zw": np.int8(0),
         "b": zeros(4, kind=np.int32)}, 108, 108 * 64,
    ),
    "whole-number convolution": ([("ConvInteger", "x w", "y", {})], {"x": (UINT8, [1, 3, 8, 8])},
                                 {"w": zeros(4, 3, 3, 3, kind=np.int8)}, 108, 108 * 36),
    "whole-number product": ([("MatMulInteger", "x w", "y", {})], {"x": (UINT8, [5, 6])},
                             {"w": zeros(6, 4, kind=np.int8)}, 24, 120),
    "a weight that is unpacked": (
        [("DequantizeLinear", "w s", "v", {}), ("Conv", "x v", "y", {})], {"x": (FLOAT, [1, 3, 8, 8])},
        {"w": zeros(4, 3, 3, 3, kind=np.int8), "s": np.float32(1)}, 108, 108 * 36,
    ),
    "settings are no parameters": ([("Clip", "x a b", "z", {}), ("Pad", "z p", "y", {})], X,
                                   {"a": np.float32(0), "b": np.float32(6), "p": zeros(8, kind=np.int64)}, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_the_count_by_hand(name, count):
    nodes, inputs, weights, params, macs = BY_HAND[name]
    table = count(graph(nodes, inputs, weights))
    assert (table.params, table.macs, table.unknown) == (params, macs, ())
    assert table.coverage.calls == 1


def test_other_work_is_counted_apart(count):
    norm = {name: zeros(3) for name in "abcd"}
    nodes = [
        ("BatchNormalization", "x a b c d", "n", {}), ("Relu", "n", "r", {}),
        ("MaxPool", "r", "p", {"kernel_shape": [2, 2]}),
        ("ReduceMean", "p", "m", {}), ("Add", "m m", "y", {}),
    ]  # fmt: skip
    table = count(graph(nodes, X, norm))
    assert (table.params, table.buffers, table.macs) == (6, 6, 0)
    sizes = 2 * 3 * 64, 2 * 3 * 64, 2 * 3 * 49 * 4, 2 * 3 * 49, 1
    assert [row.other_ops for row in table.rows] == list(sizes)


def test_a_shared_weight_counts_once_and_is_not_replaced(count):
    nodes = [("Conv", "x w", "a", {"pads": [1] * 4}), ("Conv", "a w", "y", {"pads": [1] * 4})]
    table = count(graph(nodes, X, {"w": zeros(3, 3, 3, 3)}))
    assert (table.params, table.macs) == (81, 2 * 2 * 81 * 64)
    left = priced(table, Separable()).left
    assert len(left) == 2 and all("also read by" in reason for reason in left.values())


def test_what_is_not_known_is_listed(count):
    then = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["t"])], "then", [], [
        onnx.helper.make_tensor_value_info("t", FLOAT, None)])  # fmt: skip
    nodes = [("Det", "x", "d", {}), ("If", "c", "y", {"then_branch": then, "else_branch": then})]
    table = count(graph(nodes, {"x": (FLOAT, [4, 3, 3]), "c": (onnx.TensorProto.BOOL, [])}))
    assert {one.op for one in table.unknown} == {"Det", "If"}
    assert table.coverage.calls == 0
    assert all(row.note == "not counted" for row in table.rows)


def test_free_sizes_are_given_by_order_or_name(count):
    model = graph([("Conv", "x w", "y", {})], {"x": (FLOAT, ["n", 3, "h", "w"])}, {"w": zeros(4, 3, 3, 3)})
    assert count(model, "3x8x9").macs == 108 * 6 * 7
    assert count(model, "x=3x8x9", batch=2).input[0]["shape"] == [2, 3, 8, 9]
    for given_sizes, said in [
        ((), r"Size 2 \(h\) of the input 'x' is free"),
        (("3x8",), "has 4 sizes with the batch, given 3"),
        (("4x8x8",), "Size 1 of the input 'x' is 3, given 4"),
        (("z=3x8x8",), "no input 'z'"),
        (("3x8x8", "5"), "given 2 inputs"),
    ]:
        with pytest.raises(InputError, match=said):
            count(model, *given_sizes)
    fixed = graph([("Conv", "x w", "y", {})], {"x": (FLOAT, [2, 3, 8, 8])}, {"w": zeros(4, 3, 3, 3)})
    assert count(fixed, "3x8x8").macs == 2 * 108 * 36
    with pytest.raises(InputError, match="Size 0 of the input 'x' is 2, given 3"):
        count(fixed, batch=3)
    with pytest.raises(InputError, match="takes 5 channels, given 3"):
        count(graph([("Conv", "x w", "y", {})], X, {"w": zeros(4, 5, 3, 3)}))


def test_uneven_padding_is_counted_and_not_replaced(count):
    pads = {"pads": [0, 0, 1, 1], "strides": [2, 2]}
    table = count(graph([("Conv", "x w", "y", pads)], X, {"w": zeros(4, 3, 3, 3)}))
    assert table.macs == 2 * 108 * 16
    assert table.rows[0].conv is None
    assert not table.convs
    even = count(graph([("Conv", "x w", "y", {"pads": [0, 0, 1, 1]})], X, {"w": zeros(4, 3, 2, 2)}))
    assert even.rows[0].conv.padding == "same"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network as torch exports it, as it stands and with its norms melted into its convolutions."""
    pytest.importorskip("onnxscript")
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.BatchNorm2d(8), nn.ReLU()),
        convlite.nn.SeparableConv2d(8, 12, 3, padding=1),
        nn.ConvTranspose2d(12, 6, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval()  # fmt: skip
    folder = tmp_path_factory.mktemp("exported")
    for name in ("plain", "melted"):
        torch.onnx.export(
            net, (torch.rand(1, 3, 16, 16),), folder / f"{name}.onnx", dynamo=True, optimize=name == "melted",
            verbose=False,
        )  # fmt: skip
    return SimpleNamespace(net=net, folder=folder)


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_torch_exported(exported):
    real = analyse(exported.net, (3, 16, 16))
    plain, melted = (read_onnx(exported.folder / f"{name}.onnx") for name in ("plain", "melted"))
    assert (plain.macs, plain.params, plain.other_ops) == (real.macs, real.params, real.other_ops)
    counters = sum(1 for name, _ in exported.net.named_buffers() if name.endswith("num_batches_tracked"))
    assert plain.buffers == real.buffers - counters
    assert (plain.unknown, melted.unknown) == ((), ())
    assert melted.macs == real.macs
    sums = real.by_module()
    for path, one in plain.by_module().items():
        assert (one.macs, one.params) == (sums[path].macs, sums[path].params), path
    prices = [priced(table, Separable()) for table in (real, plain, melted)]
    assert {one.macs for one in prices} == {prices[0].macs}
    assert prices[1].params == prices[0].params
    assert prices[1].replaced == prices[2].replaced == prices[0].replaced
