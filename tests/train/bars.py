"""Small data that a small network learns in a second."""

import torch

from convlite.data import Data, Images
from convlite.preprocess import Preprocess, statistics


def bars(count, seed):
    """12x12 pictures of noise with a bright bar: standing (0), lying (1) or neither (2)."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=source)
    pixels = torch.randint(0, 80, (count, 3, 12, 12), generator=source, dtype=torch.uint8)
    pixels[labels == 0, :, :, 5:7] = 255
    pixels[labels == 1, :, 5:7, :] = 255
    return Images(pixels, labels)


def data():
    train, test = bars(120, seed=0), bars(50, seed=1)
    how = Preprocess((12, 12), *statistics(train.pixels))
    return Data(train, test, ("standing", "lying", "none"), how, source="bars")


def network(dropout=0.1, norm=torch.nn.BatchNorm2d):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        norm(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, stride=2, bias=False),
        norm(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Dropout(dropout),
        torch.nn.Linear(8, 3),
    )
