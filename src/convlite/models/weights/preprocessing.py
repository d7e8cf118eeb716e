"""How a checkpoint wants its images."""

from __future__ import annotations

from dataclasses import dataclass

Numbers = tuple[float, float, float]
_IMAGENET: tuple[Numbers, Numbers] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF: tuple[Numbers, Numbers] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to size / crop, cut out the middle, scale to 0…1, subtract mean, divide by std."""

    size: int = 224
    crop: float = 0.875
    mean: Numbers = _IMAGENET[0]
    std: Numbers = _IMAGENET[1]
    interpolation: str = "bicubic"


# As published with each family. A hub's checkpoint brings its own, which goes before.
_PUBLISHED = {
    "vgg": Preprocessing(interpolation="bilinear"),
    "mobilenet_v1": Preprocessing(224, 0.875, *_HALF),
    "googlenet": Preprocessing(224, 0.875, *_HALF, "bilinear"),
    "shufflenet": Preprocessing(interpolation="bilinear"),
    "inception_resnet": Preprocessing(299, 0.8975, *_HALF),
    "inception_v": Preprocessing(299, 0.875, *_HALF),
    "xception41p": Preprocessing(299, 0.94, *_HALF),
    "xception65p": Preprocessing(299, 0.94, *_HALF),
    "xception41": Preprocessing(299, 0.903, *_HALF),
    "xception65": Preprocessing(299, 0.903, *_HALF),
    "xception71": Preprocessing(299, 0.903, *_HALF),
    "xception": Preprocessing(299, 0.8975, *_HALF),
}


def published(name: str) -> Preprocessing:
    """What the published weights of a family were trained with; ImageNet's numbers for all others."""
    for family, known in _PUBLISHED.items():
        if name.startswith(family):
            return known
    return Preprocessing()
