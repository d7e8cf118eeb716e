"""DeepLabV3+ over any backbone (Chen et al., "Encoder-Decoder with Atrous...", arXiv 1802.02611).

The backbone's last map is seen at several rates of dilation at once, then joined with a finer map of its
beginning: `DeepLabHead` is the paper's figure 2, right of the encoder's network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone
from .branches import Concat
from .layers import Asked, Maker, chain, initialise_

OUTPUT_STRIDE = 16  # of the encoder, unless told (section 3.1)
RATES = (6, 12, 18)  # at that stride; twice as much at half of it (section 3.1 of DeepLabV3, arXiv 1706.05587)
FINE, FINE_CHANNELS = 4, 48  # the decoder's second map: at which stride, and to how many channels (section 4.1)


class DeepLabHead(nn.Module):
    """A score for every class at every pixel of the image.

    Arguments:
        channels: of each of the backbone's maps; its strides likewise.
        asked: `conv` stands for the 3×3 convolutions, which are separable as published.
        width: channels within; 256 in the paper.
        dropout: before the classifier.
    """

    reads_maps = True

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], asked: Asked, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.maker = maker = Maker(asked)
        self.features = width
        # The last map at the decoder's stride or finer; where all are coarser, the first.
        self.fine = max((i for i, stride in enumerate(strides) if stride <= FINE), default=0)
        rates = [max(1, round(rate * OUTPUT_STRIDE / strides[-1])) for rate in RATES]
        c = channels[-1]
        self.atrous = Concat(
            point=maker.unit(c, width),
            **{f"rate{i}": maker.separable(c, width, dilation=rate) for i, rate in enumerate(rates, 1)},
            image=ImagePool(maker.unit(c, width)),
        )
        self.project = maker.unit((len(RATES) + 2) * width, width)
        self.reduce = maker.unit(channels[self.fine], FINE_CHANNELS)
        self.decoder = chain(
            conv1=maker.separable(width + FINE_CHANNELS, width), conv2=maker.separable(width, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.reset_(asked.num_classes)
        initialise_(self)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Scores, (N, classes, H, W) for size = (H, W), from the backbone's maps, each (N, C, h, w)."""
        fine = self.reduce(maps[self.fine])  # (N, 48, h, w)
        coarse = self.project(self.atrous(maps[-1]))  # (N, 256, H/16, W/16)
        coarse = _resized(coarse, fine.shape[2:])
        x = self.decoder(torch.cat([coarse, fine], 1))  # (N, 256, h, w)
        return _resized(self.classifier(self.dropout(x)), size)

    def reset_(self, num_classes: int) -> None:
        """A fresh classifier.

        Raises:
            InputError: no classes.
        """
        if num_classes < 1:
            raise InputError(f"A network that labels pixels needs at least one class, given {num_classes}.")
        like = next(self.parameters())
        self.classifier = nn.Conv2d(self.features, num_classes, 1, device=like.device, dtype=like.dtype)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)  # type: ignore[arg-type]


class ImagePool(nn.Module):
    """The whole map's average, through a layer, at every pixel again (ParseNet, arXiv 1506.04579)."""

    def __init__(self, unit: nn.Module) -> None:
        super().__init__()
        self.pool, self.unit = nn.AdaptiveAvgPool2d(1), unit

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, M, H, W)
        if self.training and len(x) == 1:
            raise InputError("One image has no statistics to normalise its average by: train with two or more.")
        return self.unit(self.pool(x)).expand(-1, -1, *x.shape[2:])


def stride_of(net: Backbone) -> int:
    """The encoder's output stride unless told: 16, or the network's own where it has fewer steps."""
    return max(stride for stride in (1, *net.strides) if stride <= OUTPUT_STRIDE)


def segment_(net: Backbone, asked: Asked, width: int = 256) -> None:
    """Give a network the head of DeepLabV3+ in place of its own: it then answers (N, classes, H, W).

    Raises:
        InputError: there are no classes.
    """
    net.use_head_(head := DeepLabHead(net.channels, net.strides, asked, width))
    net.kept |= {path: head.maker.kept[m] for path, m in net.named_modules() if m in head.maker.kept}
    net.placed += head.maker.placed


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
