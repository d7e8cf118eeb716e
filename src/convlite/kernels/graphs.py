"""On a GPU, a step of learning is recorded once, and then replayed.

The layers of a small network take a GPU less time than it takes the processor to ask for them, one by one. A CUDA
graph asks for all of them at once (https://docs.pytorch.org/docs/stable/notes/cuda.html, CUDA Graphs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import RunError

Work = Callable[..., tuple[Tensor, ...]]
WARM = 3  # runs before one is recorded, in which libraries choose their ways and take their memory


@dataclass(frozen=True)
class _Graph:
    """A recording, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    outputs: tuple[Tensor, ...]
    gradients: Sequence[Tensor | None]


class Recorded:
    """Called in the place of `work`: it runs a network forward and backward, once recorded for each shape.

    What Python does in `work`, hooks and choices among them, is done when recording and never again.

    Arguments:
        net: whose parameters get their gradients, new ones in each call, and whose batch norms take in the inputs.
        work: of tensors on a GPU; leaves gradients in the parameters, and returns tensors that are valid until the
            next call.
    """

    def __init__(self, net: nn.Module, work: Work) -> None:
        self._net, self._work = net, work
        self._parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        self._graphs: dict[object, _Graph] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """As `work`.

        Raises:
            RunError: it can't be recorded, since it looks at what the GPU computes, or computes elsewhere.
        """
        shapes = tuple((tuple(each.shape), each.stride(), each.dtype) for each in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._record(inputs)
        known = self._graphs[shapes]
        for own, given in zip(known.inputs, inputs, strict=True):
            own.copy_(given)
        known.graph.replay()
        for parameter, gradient in zip(self._parameters, known.gradients, strict=True):
            parameter.grad = gradient
        return known.outputs

    def _record(self, inputs: Sequence[Tensor]) -> _Graph:
        """Of inputs like these; the network and all random states are left as they were."""
        device = inputs[0].device
        own = [each.clone() for each in inputs]
        before = [buffer.clone() for buffer in self._net.buffers()]
        # One memory for all recordings: they run one after the other, and only the last one's results are read.
        pool = next((each.graph.pool() for each in self._graphs.values()), None)
        graph, now, aside = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device), torch.cuda.Stream(device)
        try:
            with torch.random.fork_rng([device]):
                aside.wait_stream(now)
                with torch.cuda.stream(aside):
                    for _ in range(WARM):
                        self._forget()
                        self._work(*own)
                now.wait_stream(aside)
                self._forget()
                with torch.cuda.graph(graph, pool=pool):
                    outputs = self._work(*own)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise RunError(
                f"This network's step can't be recorded ({str(error).splitlines()[0]}): run it without graphs."
            ) from error
        finally:
            with torch.no_grad():
                for buffer, old in zip(self._net.buffers(), before, strict=True):
                    buffer.copy_(old)
        return _Graph(graph, own, outputs, [parameter.grad for parameter in self._parameters])

    def _forget(self) -> None:
        """With no gradients there, the backward pass writes new ones and does not add to them."""
        for parameter in self._parameters:
            parameter.grad = None
