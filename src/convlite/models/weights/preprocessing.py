"""How the published checkpoints want their images."""

from __future__ import annotations

from ...preprocess import HALF, IMAGENET, Preprocess

# The first whose name begins so; a hub's checkpoint brings its own, which goes before.
_PUBLISHED = {
    "vgg": Preprocess((224, 224), *IMAGENET, 0.875, "bilinear"),
    "mobilenet_v1": Preprocess((224, 224), *HALF, 0.875, "bicubic"),
    "googlenet": Preprocess((224, 224), *HALF, 0.875, "bilinear"),
    "shufflenet": Preprocess((224, 224), *IMAGENET, 0.875, "bilinear"),
    "inception_resnet": Preprocess((299, 299), *HALF, 0.8975, "bicubic"),
    "inception_v": Preprocess((299, 299), *HALF, 0.875, "bicubic"),
    "xception41p": Preprocess((299, 299), *HALF, 0.94, "bicubic"),
    "xception65p": Preprocess((299, 299), *HALF, 0.94, "bicubic"),
    "xception41": Preprocess((299, 299), *HALF, 0.903, "bicubic"),
    "xception65": Preprocess((299, 299), *HALF, 0.94, "bicubic"),
    "xception71": Preprocess((299, 299), *HALF, 0.903, "bicubic"),
    "xception": Preprocess((299, 299), *HALF, 0.8975, "bicubic"),
    "": Preprocess((224, 224), *IMAGENET, 0.875, "bicubic"),
}


def published(name: str) -> Preprocess:
    """What the published weights of a family were trained with; ImageNet's numbers for all others."""
    return next(known for family, known in _PUBLISHED.items() if name.startswith(family))
