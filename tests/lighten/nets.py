"""Small networks to lighten, among them the awkward ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def pictures() -> Tensor:
    """Smooth, like pictures: (96, 3, 12, 12)."""
    return torch.randn(96, 3, 12, 12, generator=torch.Generator().manual_seed(0)).cumsum(2).cumsum(3) / 8


def outputs(model: nn.Module, images: Tensor):
    with torch.no_grad():
        return model(images)


def unit(c: int, m: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, m, 3, stride, 1, bias=False), nn.BatchNorm2d(m), nn.ReLU(inplace=True))


def plain(classes: int = 5) -> nn.Module:
    """Three convolution units and a classifier, with batch-norm statistics that are not the initial ones."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))
    net = nn.Sequential(unit(3, 12), unit(12, 16, 2), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), *head)
    return settled(net)


def settled(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return net.eval()


class Block(nn.Module):
    """Depthwise 7×7, and a perceptron over the channels that stand last (Liu et al., arXiv 2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> the same
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # (N, H, W, C)
        return x + self.narrow(F.gelu(self.wide(y))).permute(0, 3, 1, 2)


def modern() -> nn.Module:
    """Grouped and depthwise convolutions and linear layers, after one dense convolution."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 12))
    grouped = nn.Conv2d(16, 24, 3, 2, 1, groups=4, bias=False), nn.BatchNorm2d(24), nn.ReLU()
    return settled(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), Block(16), *grouped, Block(24), *head))


class Standardised(nn.Conv2d):
    """Somebody's own layer: its kernel is computed when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias, self.stride, self.padding)

    def kernel(self) -> Tensor:
        flat = self.weight.flatten(1)
        return ((flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)).view_as(self.weight)


class Awkward(nn.Module):
    """What breaks other tools: reshapes, one convolution twice, functional ones, a list, ties, a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.list = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.alias = self.list[0]
        self.kernel = nn.Parameter(torch.randn(16, 16, 3, 3) / 12)
        self.borrowed = nn.Conv2d(16, 16, 3, padding=1)
        self.normed = parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1))
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.transposed = nn.ConvTranspose2d(16, 8, 2, 2)
        self.unused = nn.Conv2d(16, 16, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)  # (N, 16, H, W)
        x = self.twice(F.relu(self.twice(x)))
        for layer in self.list:
            x = F.relu(layer(x)) + x
        n, c, h, w = x.shape
        x = x.reshape(n * 2, c // 2, h, w).reshape(n, c, h, w)
        x = F.conv2d(x, self.kernel, padding=1) + F.conv2d(x, self.borrowed.weight, padding=1)
        x = self.grouped(self.normed(F.relu(x)))
        return {"map": self.transposed(x), "pooled": x.mean((2, 3))}
