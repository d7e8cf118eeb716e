"""Peak live activation memory of a forward and of a training step, found without allocating any of it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import inputs as given
from .borrow import Borrowed, borrowed, unwrap
from .operations import Operation
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes that were alive at once, and the module that was running then."""

    bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a model needs besides the program itself.

    Arguments:
        weights, buffers: of the model, each tensor once.
        input: of what it is given, which is alive throughout and part of the peaks.
        inference: the peak of a forward without gradients.
        training: the peak of a forward and a backward in training mode, gradients of the parameters included;
            None where it was not asked for.
        kept: what is alive between the two, for the backward; 0 where it was not asked for.
        gradients: of the parameters, alive at the end of a training step.

    The peaks hold what convolutions take on a processor while they run (see `_scratch`); a GPU's engine chooses its
    workspace by the memory that is free.
    """

    weights: int
    buffers: int
    input: int
    inference: Peak
    training: Peak | None
    kept: int
    gradients: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def peak_memory(model: nn.Module, input: Any, *, training: bool = True) -> Memory:
    """What a model's tensors take at most, followed on the meta device from their making to their end.

    Arguments:
        model, input: as for `analyse`. Some layers can't train on a single image: give a batch as a tensor.
        training: whether to follow a training step too. Its loss is the sum of what the model returns.

    Raises:
        InputError: as for `analyse`.
    """
    model = unwrap(model)
    dtype = given.float_type(model)
    inference = _follow(model, given.on_meta(input, dtype), training=False)
    step = _follow(model, given.on_meta(input, dtype), training=True) if training else None
    weights = {id(p): p for p in model.parameters()}.values()
    return Memory(
        weights=sum(p.nbytes for p in weights),
        buffers=sum(b.nbytes for b in model.buffers()),
        input=inference.input,
        inference=Peak(inference.peak, inference.peak_at),
        training=None if step is None else Peak(step.peak, step.peak_at),
        kept=0 if step is None else step.kept,
        gradients=0 if step is None else sum(p.nbytes for p in weights if p.requires_grad),
    )


def _follow(model: nn.Module, inputs: given.Inputs, *, training: bool) -> _Live:
    on_gpu = any(p.is_cuda for p in model.parameters())
    with borrowed(model, training=training) as loan:
        live = _Live(loan, scratch=not on_gpu)
        live.hold(inputs)
        step = "forward"
        try:
            with _FusedAttention():
                out = live.run(*inputs, gradients=training)
                if training:
                    step = "backward"
                    live.kept = live.now - live.input
                    live.backward(out)
        except Exception as error:  # a model may raise anything
            raise given.failure(step, loan.modules, live.where, inputs, error) from error
        return live


class _Live(Trace):
    """Follows every storage from the operation that makes it to its end.

    Attributes:
        now, peak: bytes alive, and the most there were; peak_at: the module that ran then.
    """

    def __init__(self, loan: Borrowed, scratch: bool) -> None:
        super().__init__(loan)
        self.now = self.peak = self.input = self.kept = 0
        self.peak_at = ""
        self._alive: dict[int, int] = {}
        weights = [t for t in loan.stand_ins.values() if t.dim() == 4 and isinstance(t, nn.Parameter)]
        self._plain = all(t.is_contiguous() for t in weights)
        self._scratch = scratch

    def hold(self, inputs: given.Inputs) -> None:
        """Count what the model is given."""
        args, kwargs = inputs
        for tensor in _flat((*args, *kwargs.values())):
            self._born(tensor)
        self.input = self.now

    def backward(self, out: Any) -> None:
        """The backward of the sum of everything the model returned."""
        with torch.enable_grad(), self:
            losses = [t.sum() for t in _flat((out,)) if t.requires_grad]
            if losses:
                torch.stack(losses).sum().backward() if len(losses) > 1 else losses[0].backward()

    def _record(self, operation: Operation, args: tuple[Any, ...], tensors: list[Tensor], out: Any) -> None:
        for tensor in _flat((out,)):
            self._born(tensor)
        if not self._scratch:
            return
        if operation.name == "conv":
            self._compare(_scratch(args[0], args[1], out, self._plain))
        elif operation.name == "convolution_backward":
            grad, x, weight = args[:3]
            both = min(_blocked(x), _blocked(grad)) if self._plain else weight.nbytes  # here both are so at once
            self._compare(_scratch(x, weight, grad, self._plain) + both)

    def _compare(self, scratch: int = 0) -> None:
        if self.now + scratch > self.peak:
            self.peak, self.peak_at = self.now + scratch, self._stack[-1].path

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or key in self._weights:
            return
        self._alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._died, key)
        self._compare()

    def _died(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def _scratch(x: Tensor, weight: Tensor, out: Tensor, plain: bool) -> int:
    """What a convolution takes on a processor while it runs, as the operating system sees it.

    oneDNN's reorders the weight, and where tensors are not channels-last, first its input into blocks and then its
    output out of them, never more than two at once; but a 1×1 with stride 1 on a single thread is a plain matrix
    product. Torch leaves small single images to a matrix product over unfolded patches.

    Arguments:
        plain: whether the model's weights are contiguous, rather than channels-last.
    """
    taps = weight[0, 0].numel()
    in_blocks = x.shape[0] > 1 or x.numel() > 20480 or x.shape[1] > weight.shape[1] or taps > 9
    if taps == 1 and x.shape[2:] == out.shape[2:] and (not in_blocks or torch.get_num_threads() == 1):
        return 0
    if in_blocks:
        given, made = _blocked(x), _blocked(out)
        return weight.nbytes + (max(given + made - out.nbytes, made) if plain else 0)  # `out` itself is counted
    return x.shape[1] * taps * out[0, 0].numel() * x.itemsize


def _blocked(x: Tensor) -> int:
    """The bytes of (N, C, H, W) in oneDNN's blocks of as many channels as a vector has numbers; it keeps images."""
    wide = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
    channels = x.shape[1]
    return x.nbytes if channels <= 4 else x.nbytes // channels * (-(-channels // wide) * wide)


class _FusedAttention(TorchFunctionMode):
    """On the meta device torch writes attention out, scores and all; a processor or GPU runs the fused kernel."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            out = _fused(*args, **kwargs)
            if out is not None:
                return out
        return function(*args, **kwargs)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """What the kernel returns, with the signature of torch's function; None where torch has no kernel for it."""
    plain = query.dim() == key.dim() == value.dim() == 4 and query.shape[-1] == key.shape[-1] == value.shape[-1]
    if not plain or dropout_p or enable_gqa:
        return None
    if attn_mask is not None:
        if attn_mask.requires_grad or attn_mask.dim() not in (2, 4):
            return None
        attn_mask = attn_mask.to(query.dtype)  # truth values become numbers to add
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, is_causal=is_causal, attn_mask=attn_mask, scale=scale)[0]


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _flat(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
