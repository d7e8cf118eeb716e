"""Ways to count a network's multiply-accumulates: convlite's and other tools', as their users call them.

Each takes a network and its positional inputs, and returns what the tool calls multiply-accumulates and parameters
(None where it has no figure). Those whose "FLOPs" are two for each multiply-accumulate are halved.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import convlite as cl

Counted = tuple[float, float | None]
Inputs = tuple[Tensor, ...]


def convlite(net: nn.Module, inputs: Inputs) -> Counted:
    """`convlite.analyse`."""
    table = cl.analyse(net, inputs)
    return table.macs, table.params


def torchs(net: nn.Module, inputs: Inputs) -> Counted:
    """`torch.utils.flop_counter`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*inputs)
    return counter.get_total_flops() / 2, None


def fvcore(net: nn.Module, inputs: Inputs) -> Counted:
    """Facebook's fvcore; it calls a multiply-accumulate a flop."""
    from fvcore.nn import FlopCountAnalysis, parameter_count

    analysis = FlopCountAnalysis(net, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.total(), parameter_count(net)[""]


def ptflops_pytorch(net: nn.Module, inputs: Inputs) -> Counted:
    """The engine of ptflops that hooks modules."""
    return _ptflops(net, inputs, "pytorch")


def ptflops_aten(net: nn.Module, inputs: Inputs) -> Counted:
    """The engine of ptflops that sees operations."""
    return _ptflops(net, inputs, "aten")


def _ptflops(net: nn.Module, inputs: Inputs, engine: str) -> Counted:
    from ptflops import get_model_complexity_info

    given: Any = inputs[0] if len(inputs) == 1 else dict(zip(inspect.signature(net.forward).parameters, inputs))
    macs, params = get_model_complexity_info(
        net, (1,), print_per_layer_stat=False, as_strings=False, backend=engine, input_constructor=lambda _: given
    )
    if macs is None:
        raise RuntimeError("the forward failed")  # it prints what it caught
    return macs, params


def torchinfo(net: nn.Module, inputs: Inputs) -> Counted:
    """The summary of torchinfo."""
    from torchinfo import summary

    found = summary(net, input_data=inputs, verbose=0)
    return found.total_mult_adds, found.total_params


def thop(net: nn.Module, inputs: Inputs) -> Counted:
    """The profile of thop, also called pytorch-OpCounter."""
    from thop import profile

    return profile(net, inputs=inputs, verbose=False)


def calflops(net: nn.Module, inputs: Inputs) -> Counted:
    """The counter of calflops."""
    from calflops import calculate_flops

    return calculate_flops(net, args=list(inputs), print_results=False, output_as_string=False)[1:]


def deepspeed(net: nn.Module, inputs: Inputs) -> Counted:
    """DeepSpeed's profiler, without the second run with which it warms up."""
    from deepspeed.profiling.flops_profiler import get_model_profile

    return get_model_profile(net, args=list(inputs), print_profile=False, as_string=False, warm_up=0)[1:]


def onnx_tool(net: nn.Module, inputs: Inputs) -> Counted:
    """A file for ONNX, and what onnx-tool counts in it."""
    import onnx
    from onnx_tool import Model

    file = io.BytesIO()
    torch.onnx.export(net, inputs, file, dynamo=False, do_constant_folding=False)
    graph = Model(onnx.load_from_string(file.getvalue()), {"verbose": False}).graph
    graph.graph_reorder_nodes()
    graph.shape_infer()
    graph.profile()
    return graph.macs[0], graph.params


COUNTERS: dict[str, Callable[[nn.Module, Inputs], Counted]] = {
    "convlite": convlite,
    "torch FlopCounterMode": torchs,
    "fvcore": fvcore,
    "ptflops (pytorch)": ptflops_pytorch,
    "ptflops (aten)": ptflops_aten,
    "torchinfo": torchinfo,
    "thop": thop,
    "calflops": calflops,
    "DeepSpeed": deepspeed,
    "onnx-tool": onnx_tool,
}
PACKAGES = ("torch", "fvcore", "ptflops", "torchinfo", "thop", "calflops", "deepspeed", "onnx-tool")
