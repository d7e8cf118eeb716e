"""The embedded data: 1,797 real handwritten digits, which scikit-learn carries with it.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import need
from .images import Images


def digits(size: tuple[int, int] = (32, 32), channels: int = 3) -> tuple[Images, Images, tuple[str, ...]]:
    """Train (1,347) and test (450) images, and the classes.

    The 8x8 pictures of levels 0..16 become 0..255, scaled up bilinearly, the same in every channel.
    The split is `train_test_split(range(1797), test_size=0.25, random_state=0, stratify=labels)`.
    """
    found = need("sklearn.datasets", "train").load_digits()
    pixels = torch.from_numpy(found.images).float()[:, None] * (255 / 16)  # (1797, 1, 8, 8)
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False).round().to(torch.uint8)
    images = Images(pixels.repeat(1, channels, 1, 1), torch.from_numpy(found.target).long())
    train, test = need("sklearn.model_selection", "train").train_test_split(
        np.arange(len(images)), test_size=0.25, random_state=0, stratify=found.target
    )
    return (
        images[torch.from_numpy(train)],
        images[torch.from_numpy(test)],
        tuple(map(str, found.target_names)),
    )
