"""In which order the tensors of other libraries stand, whatever the order in their file.

A file may list its tensors by name (safetensors does), so the order is restored from the names: they are a
tree, and each line below is the order of children somewhere in it. A line serves every node whose children
are all on it; numbered children follow their numbers. Shortcuts come after the branch, auxiliary heads
after the classifier: as they do here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_LEAVES = "weight bias running_mean running_var"

LAYOUTS: dict[str, tuple[str, ...]] = {
    "timm xception": (
        "conv1 bn1 conv2 bn2 block1 block2 block3 block4 block5 block6 block7 block8 block9 block10 block11 "
        "block12 conv3 bn3 conv4 bn4 fc last_linear",
        "rep skip skipbn",
        "conv1 pointwise",
    ),
    "timm aligned xception": (
        "stem blocks head",
        "conv bn",
        "norm stack shortcut",
        "conv1 conv2 conv3",
        "norm conv_dw bn_dw conv_pw bn_pw",
        "fc",
    ),
    "timm or torchvision resnet": (
        "conv1 bn1 layer1 layer2 layer3 layer4 fc",
        "conv1 bn1 conv2 bn2 conv3 bn3 downsample",
    ),
    "timm vgg": ("features pre_logits head", "fc1 fc2", "fc"),
    "torchvision vgg or mobilenet": ("features classifier", "conv", "block", "fc1 fc2"),
    "timm or torchvision inception_v3": (
        "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3 Mixed_5b Mixed_5c Mixed_5d Mixed_6a "
        "Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c fc AuxLogits",
        "conv bn",
        "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool",
        "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3",
        "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 "
        "branch7x7dbl_5 branch_pool",
        "conv0 conv1 fc",
        "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4",
        "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a "
        "branch3x3dbl_3b branch_pool",
    ),
    "timm inception_v4": (
        "features last_linear",
        "conv bn",
        "branch0 branch1 branch2 branch3",
        "branch0 branch1_0 branch1_1a branch1_1b branch2_0 branch2_1 branch2_2 branch2_3a branch2_3b branch3",
    ),
    "timm inception_resnet_v2": (
        "conv2d_1a conv2d_2a conv2d_2b conv2d_3b conv2d_4a mixed_5b repeat mixed_6a repeat_1 mixed_7a repeat_2 "
        "block8 conv2d_7b classif",
        "conv bn",
        "branch0 branch1 branch2 branch3 conv2d",
    ),
    "torchvision googlenet": (
        "conv1 conv2 conv3 inception3a inception3b inception4a inception4b inception4c inception4d inception4e "
        "inception5a inception5b fc aux1 aux2",
        "conv bn",
        "branch1 branch2 branch3 branch4",
        "conv fc1 fc2",
    ),
    "timm mobilenet": (
        "conv_stem bn1 blocks conv_head bn2 classifier",
        "conv_dw bn1 se conv_pw bn2",  # depthwise first, unless the block expands before
        "conv_pw bn1 conv_dw bn2 se conv_pwl bn3",
        "conv_reduce conv_expand",
        "conv bn1",
    ),
    "torchvision shufflenet": ("conv1 stage2 stage3 stage4 conv5 fc", "branch1 branch2"),
}


def arrange(names: Collection[str]) -> tuple[str, list[str]] | None:
    """The layout that these names follow, and they in its order; None where no layout knows them all."""
    tree: dict = {}
    for name in names:
        node = tree
        for word in name.split("."):
            node = node.setdefault(word, {})
    for layout, lines in LAYOUTS.items():
        orders = [line.split() for line in (*lines, _LEAVES)]
        top = set(orders[0])
        if set(tree) <= top and (arranged := _walk(tree, orders, "")) is not None:
            return layout, arranged
    return None


def is_auxiliary(name: str) -> bool:
    """Whether a tensor belongs to a head that only training uses."""
    return name.lower().startswith("aux")


def _walk(node: Mapping[str, dict], orders: Iterable[list[str]], prefix: str) -> list[str] | None:
    children = _order(node, orders)
    if children is None:
        return None
    arranged: list[str] = []
    for word in children:
        below = _walk(node[word], orders, f"{prefix}{word}.") if node[word] else [prefix + word]
        if below is None:
            return None
        arranged += below
    return arranged


def _order(words: Collection[str], orders: Iterable[list[str]]) -> list[str] | None:
    if all(word.isdigit() for word in words):
        return sorted(words, key=int)
    for order in orders:
        if set(words) <= set(order):
            return [word for word in order if word in words]
    return None
