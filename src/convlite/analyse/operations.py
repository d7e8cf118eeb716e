"""What each of torch's operations is: free, a sum of products, or some other work; or unknown.

Every operation belongs to one class, by its schema (views), its tag (`torch.Tag.pointwise`), its formula, or
its name in the lists below. What belongs to none is unknown: it is reported, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from .formulas import ATTENTION, MACS, Formula

Class = Literal["free", "macs", "elementwise", "reads", "window", "taps", "move", "unknown"]
"""
- free: nothing is computed and nothing moved: views, empty memory.
- macs: sums of products, see `formulas`.
- elementwise: one element operation for each element written.
- reads: one for each element read: reductions, normalisations, softmax, scans, sorting.
- window: one for each element of each output's window: pooling.
- taps: one for each input pixel that an output pixel is interpolated from.
- move: bytes only: copies, padding, concatenation, indexing, filling.
"""

_FREE = """
    detach alias as_strided lift_fresh lift _unsafe_view _reshape_alias empty empty_like empty_strided
    empty_permuted new_empty new_empty_strided set_ resize_ sym_size sym_stride sym_numel sym_storage_offset
    _local_scalar_dense _assert_async _assert_scalar _functional_assert_async _assert_tensor_metadata
    unsafe_split unsafe_split_with_sizes unsafe_chunk _fused_sdp_choice record_stream is_same_size
"""
_ELEMENTWISE = """
    hardswish glu log_sigmoid_forward _prelu_kernel rrelu_with_noise complex polar floor_divide rsub
    huber_loss mse_loss smooth_l1_loss soft_margin_loss binary_cross_entropy binary_cross_entropy_with_logits
    bernoulli uniform normal random exponential rand rand_like randn randn_like randint randint_like
    native_dropout rrelu_with_noise_functional addr affine_grid_generator isin allclose _masked_scale
    linalg_cross index_add scatter_add scatter_reduce index_reduce fake_quantize_per_channel_affine_cachemask
    fake_quantize_per_tensor_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic dequantize masked_fill
"""
_READS = """
    all any amax amin aminmax _aminmax argmax argmin max min mean sum nansum prod std std_mean var var_mean
    norm linalg_vector_norm native_norm logsumexp count_nonzero median nanmedian mode kthvalue topk sort
    unique2 _unique2 unique_consecutive unique_dim histc bincount dist trace _is_all_true _is_any_true equal
    native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update
    _batch_norm_no_update cudnn_batch_norm miopen_batch_norm native_layer_norm native_group_norm
    _fused_rms_norm _weight_norm_interface renorm _softmax _log_softmax _safe_softmax _masked_softmax
    cumsum cumprod cummax cummin _cummax_helper _cummin_helper logcumsumexp _logcumsumexp
    adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d
    mkldnn_adaptive_avg_pool2d nll_loss_forward nll_loss2d_forward searchsorted bucketize
"""
_WINDOW = """
    max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d mkldnn_max_pool2d
    mkldnn_max_pool3d max_pool2d max_pool3d fractional_max_pool2d fractional_max_pool3d
"""
_TAPS = {
    "upsample_linear1d": 2,
    "upsample_bilinear2d": 4,
    "upsample_trilinear3d": 8,
    "upsample_bicubic2d": 16,
    "grid_sampler_2d": 4,
    "grid_sampler_3d": 8,
}
_MOVE = """
    clone copy _to_copy _copy_from cat stack _stack _chunk_cat constant_pad_nd reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d index
    _unsafe_index index_select index_put _index_put_impl _unsafe_index_put index_fill index_copy gather
    scatter masked_select masked_scatter take put embedding embedding_renorm roll flip rot90 repeat
    repeat_interleave tril triu tril_indices triu_indices diag_embed block_diag fill zero zeros zeros_like
    ones ones_like full full_like new_zeros new_ones new_full scalar_tensor arange linspace logspace range eye
    randperm im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle slice_scatter select_scatter
    diagonal_scatter as_strided_scatter upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d max_unpool2d max_unpool3d
    nonzero nonzero_static _pin_memory _lazy_clone resize_as _reshape_copy to_padded_tensor hann_window
    hamming_window blackman_window bartlett_window kaiser_window view_copy expand_copy permute_copy unfold_copy
    transpose_copy t_copy squeeze_copy unsqueeze_copy narrow_copy unbind_copy split_with_sizes_copy diagonal_copy
    _unsafe_masked_index _unsafe_masked_index_put_accumulate
"""
_CLASSES: dict[str, Class] = {
    **dict.fromkeys(_FREE.split(), "free"),
    **dict.fromkeys(_ELEMENTWISE.split(), "elementwise"),
    **dict.fromkeys(_READS.split(), "reads"),
    **dict.fromkeys(_WINDOW.split(), "window"),
    **dict.fromkeys(_TAPS, "taps"),
    **dict.fromkeys(_MOVE.split(), "move"),
    **dict.fromkeys(MACS, "macs"),
}

_SHOWN = {
    "native_batch_norm": "batch_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "to_copy": "to",
    "upsample_nearest_exact2d": "upsample_nearest2d",
    "native_batch_norm_legit": "batch_norm",
    "native_batch_norm_legit_no_training": "batch_norm",
    "prelu_kernel": "prelu",
    "constant_pad_nd": "pad",
    "trilinear": "bilinear",
}


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One of torch's operations, as far as counting needs to know it.

    Arguments:
        name: what people call it: "conv" for any convolution, "attention" for all its forms, "add" for
            `add_`.
        kind: its class.
        formula: its multiply-accumulates, where its class is "macs".
        mutates: whether it writes to its arguments.
        needs_data: whether its result can't be known from shapes alone.
    """

    name: str
    kind: Class
    formula: Formula | None
    mutates: bool
    needs_data: bool

    def other_ops(self, args: tuple[Any, ...], out: Any) -> int:
        """Element operations that are no multiply-accumulates; see `Class` for what one is."""
        return _COUNTS[self.kind](self, args, out)

    @property
    def is_convolution(self) -> bool:
        return self.name == "conv"


def learn(function: Any) -> Operation:
    """Look at one overload of one operation, once."""
    raw = function._schema.name.rpartition("::")[2]
    name = raw if raw in _CLASSES else raw.rstrip("_")
    known = function.namespace in ("aten", "prims")  # another library's "linear" is not ours to interpret
    kind: Class = "unknown"
    if known and name in _CLASSES:
        kind = _CLASSES[name]
    elif function.is_view or torch.Tag.inplace_view in function.tags:
        kind = "free"
    elif torch.Tag.pointwise in function.tags:
        kind = "elementwise"
    return Operation(
        name=_shown(name) if known else str(function),
        kind=kind,
        formula=MACS[name] if kind == "macs" else None,
        mutates=function._schema.is_mutable,
        needs_data=bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags)),
    )


def _shown(name: str) -> str:
    if name in ATTENTION:
        return "attention"
    if "conv" in name and name in MACS:
        return "conv"
    name = name.lstrip("_")
    return _SHOWN.get(name, name)


def _written(out: Any) -> int:
    if isinstance(out, Tensor):
        return out.numel()
    return sum(t.numel() for t in out if isinstance(t, Tensor)) if isinstance(out, (tuple, list)) else 0


def _elementwise(self: Operation, args: tuple[Any, ...], out: Any) -> int:
    return out.numel() if isinstance(out, Tensor) else out[0].numel()


def _read(self: Operation, args: tuple[Any, ...], out: Any) -> int:
    return args[0].numel()


def _window(self: Operation, args: tuple[Any, ...], out: Any) -> int:
    first = out if isinstance(out, Tensor) else out[0]
    kernel, dims = args[1], int(self.name[-2])  # a kernel of one number stands for all dimensions
    return first.numel() * (prod(kernel) if len(kernel) > 1 else kernel[0] ** dims)


def _taps(self: Operation, args: tuple[Any, ...], out: Any) -> int:
    return out.numel() * _TAPS[self.name]


def _scores(self: Operation, args: tuple[Any, ...], out: Any) -> int:
    """Attention has a softmax over its scores inside; other sums of products nothing that is counted."""
    return prod(args[0].shape[:-1]) * args[1].shape[-2] if self.name == "attention" else 0


def _none(self: Operation, args: tuple[Any, ...], out: Any) -> int:
    return 0


_COUNTS: dict[Class, Callable[[Operation, tuple[Any, ...], Any], int]] = {
    "free": _none,
    "macs": _scores,
    "elementwise": _elementwise,
    "reads": _read,
    "window": _window,
    "taps": _taps,
    "move": _none,
    "unknown": _none,
}
