"""Small networks that carry the counts one derives for them by hand; among them what other tools get wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint


@dataclass
class Toy:
    """A network, its input, and what it must count to."""

    net: nn.Module
    input: Any
    params: int
    macs: int


class Functional(nn.Module):
    """A convolution that no module computes."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(8, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=1)


class Product(nn.Module):
    """(N, 6, 5) · (5, 7), and an einsum over two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5, 7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nij,nkj->nik", x @ self.weight, x @ self.weight)


class Vectors(nn.Module):
    """Matrix times vector, dot product, addbmm, baddbmm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.rand(4, 6)), nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:  # (1, 6)
        v = torch.mv(self.a, x[0])  # 24
        v = torch.addmv(v, self.a, x[0])  # 24
        s = torch.dot(self.b, x[0])  # 6
        m = torch.baddbmm(torch.zeros(2, 3, 5), torch.ones(2, 3, 4) * s, torch.ones(2, 4, 5))  # 120
        return (
            v.sum() + torch.addbmm(torch.zeros(3, 5), m.transpose(1, 2).transpose(1, 2), torch.ones(2, 5, 5)).sum()
        )


class Attention(nn.Module):
    """Scaled dot product attention, once plain and once with fewer key heads."""

    def forward(self, x: Tensor) -> Tensor:  # (1, 4, 10, 8): heads, tokens, channels
        y = F.scaled_dot_product_attention(x, x[:, :, :6], x[:, :, :6, :5])  # 4·10·6·(8 + 5)
        z = F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], enable_gqa=True, is_causal=True)  # 4·10·10·16
        return y.sum() + z.sum()


class Functionals(nn.Module):
    """Every functional form of a convolution or a linear layer, and im2col by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.plane = nn.Parameter(torch.rand(4, 3, 3)), nn.Parameter(torch.rand(4, 3, 3, 3))
        self.volume, self.matrix = nn.Parameter(torch.rand(4, 3, 1, 3, 3)), nn.Parameter(torch.rand(4, 8))

    def forward(self, x: Tensor) -> Tensor:  # (1, 3, 8, 8)
        y = F.conv1d(x[..., 0], self.line).sum() + F.conv3d(x[:, :, None], self.volume).sum()  # 36·6 + 108·36
        y = y + torch.conv2d(x, self.plane, groups=1).sum() + F.linear(x, self.matrix).sum()  # 108·36 + 24·8·4
        y = y + F.conv_transpose2d(x, self.plane.transpose(0, 1), stride=2).sum()  # 108·64: by the input's pixels
        y = y + F.conv_transpose1d(x[..., 0], self.line.transpose(0, 1)).sum()  # 36·8
        return y + (self.plane.flatten(1) @ F.unfold(x, 3)).sum()  # 108·36


class Products(nn.Module):
    """Every way to write a product of matrices; those that broadcast are where batches get lost."""

    def forward(self, x: Tensor) -> Tensor:  # (1, 3, 4, 5)
        a, b = x[0], x[0].transpose(1, 2)  # (3, 4, 5), (3, 5, 4)
        y = torch.bmm(a, b).sum() + torch.matmul(x, b).sum() + a.matmul(b[0]).sum()  # 3 · 240
        y = y + torch.mm(a[0], b[0]).sum() + torch.addmm(torch.ones(4), a[0], b[0]).sum()  # 2 · 80
        y = y + torch.inner(a, a[0]).sum() + torch.tensordot(a, b, ([0, 2], [0, 1])).sum()  # 240, 4·4·15
        y = y + torch.linalg.multi_dot([a[0], b[0], a[0]]).sum()  # 80 and 4·4·5
        return y + torch.vmap(torch.mm)(a, b).sum()  # 240


class Sums(nn.Module):
    """Einsums over batches, of three operands, over two axes at once."""

    def forward(self, x: Tensor) -> Tensor:  # (1, 2, 4, 6): heads, tokens, channels
        y = torch.einsum("...hnd,...hmd->...hnm", x, x).sum()  # 2·4·4·6
        y = y + torch.einsum("bhnd,bhmd,bhme->bhne", x, x, x).sum()  # 2·4·4·6, twice
        return y + torch.einsum("bhnd,bgnd->bhg", x, x).sum()  # 2·2·24


class Masked(nn.Module):
    """Attention under masks: as published figures have it, what is masked counts too."""

    def forward(self, x: Tensor) -> Tensor:  # (1, 2, 6, 4): heads, tokens, channels
        y = F.scaled_dot_product_attention(x, x, x, torch.ones(6, 6, dtype=torch.bool).tril())  # 2·36·8
        y = y + F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(6, 6), scale=0.5)  # 2·36·8
        y = y + F.scaled_dot_product_attention(x[0], x[0], x[0], is_causal=True)  # 2·36·8, without a batch
        scores = (x @ x.transpose(2, 3)).masked_fill_(
            torch.ones(6, 6, dtype=torch.bool).triu(1), -1e9
        )  # written out: 2·36·4
        return y + scores.softmax(-1) @ x  # 2·36·4


class SelfAttention(nn.Module):
    """In eval mode and without gradients, torch runs it as one operation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # (1, 10, 8)
        return self.attention(x, x, x, need_weights=self.training)[0]


class Repeated(nn.Module):
    """Two convolutions with one weight, under `checkpoint`, as where memory is short."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda y: self.second(self.first(y)), x, use_reentrant=False)


class Tied(nn.Module):
    """An embedding whose table is also the classifier's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:  # (1, 5) of integers
        return self.head(self.embed(x))


class Own(nn.Conv2d):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Twice(nn.Module):
    """One convolution, run on two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x)).mean() + self.conv(x[..., ::2, ::2]).mean()


class Constants(nn.Module):
    """Tensors that no module holds, some looked at, in a forward that also writes to its own attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((1, 3, 1, 1), 2.0)
        self.seen: list[Tensor] = []
        self.counter = torch.zeros(())
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        self.seen.append(x)
        self.counter += 1
        mask = torch.zeros(4)
        mask[2:] = 1
        if mask.sum() > 1:  # known without data
            x = x * self.scale + torch.arange(3.0).view(3, 1, 1)
        return self.fc(x.mean((2, 3)))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 4), nn.Conv2d(3, 4, 1)

    def forward(self, vector: Tensor, image: Tensor) -> Tensor:
        return self.left(vector)[..., None, None] + self.right(image)


class Listed(nn.Module):
    """Convolutions in a list that has no forward, one of which never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 9, 3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self.layers)[:2]:
            x = layer(x)
        return x


def toys() -> dict[str, Toy]:
    """Every toy by name, freshly made."""
    conv, out = nn.Conv2d, 8 * 8
    dropping = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    mixed = nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.AvgPool2d(2), nn.Upsample(scale_factor=2))
    tokens, heads = (10, 8), {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "batch_first": True}
    attended = 10 * 8 * 24 + 2 * 10 * 10 * 8 + 10 * 8 * 8  # projections in, scores and values, projection out
    forward = 2 * 10 * 8 * 16
    return {
        "functional": Toy(Functional(), (3, 8, 8), 216, 216 * out),
        "functionals": Toy(
            Functionals(),
            (3, 8, 8),
            36 + 108 + 108 + 32,
            36 * 6 + 3 * 108 * 36 + 24 * 8 * 4 + 108 * 64 + 36 * 8,
        ),
        "products": Toy(Products(), (3, 4, 5), 0, 3 * 240 + 2 * 80 + 2 * 240 + 160 + 240),
        "sums": Toy(Sums(), (2, 4, 6), 0, 3 * 2 * 4 * 4 * 6 + 2 * 2 * 24),
        "product": Toy(Product(), (6, 5), 35, 2 * 6 * 5 * 7 + 6 * 6 * 7),
        "vectors": Toy(Vectors(), (6,), 30, 24 + 24 + 6 + 2 * 3 * 4 * 5 + 2 * 3 * 5 * 5),
        "attention": Toy(Attention(), (4, 10, 8), 0, 4 * 10 * 6 * 13 + 4 * 10 * 10 * 16),
        "masked attention": Toy(Masked(), (2, 6, 4), 0, 4 * 2 * 36 * 8),
        "self attention": Toy(SelfAttention(), tokens, 4 * 8 * 8 + 4 * 8, attended),
        "cross attention": Toy(
            nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True),
            (tokens, (7, 4), (7, 6)),
            8 * (8 + 4 + 6 + 8) + 4 * 8,
            10 * 8 * 8 + 7 * 4 * 8 + 7 * 6 * 8 + 2 * 10 * 7 * 8 + 10 * 8 * 8,
        ),
        "encoder layer": Toy(
            nn.TransformerEncoderLayer(**heads), tokens, 288 + 2 * 8 * 16 + 24 + 4 * 8, attended + forward
        ),
        "decoder layer": Toy(
            nn.TransformerDecoderLayer(**heads),
            (tokens, tokens),
            2 * 288 + 2 * 8 * 16 + 24 + 6 * 8,
            2 * attended + forward,
        ),
        "tied": Toy(Tied(), torch.zeros(1, 5, dtype=torch.long), 160, 5 * 8 * 20),
        "subclass": Toy(Own(3, 4, 2, bias=False), (3, 8, 8), 48, 48 * out),
        "twice": Toy(Twice(), (4, 8, 8), 144, 144 * (64 + 64 + 16)),
        "constants": Toy(Constants(), (3, 8, 8), 8, 6),
        "two inputs": Toy(TwoInputs(), ((6,), (3, 5, 5)), 28 + 16, 24 + 12 * 25),
        "named inputs": Toy(TwoInputs(), {"image": (3, 5, 5), "vector": torch.rand(1, 6)}, 28 + 16, 24 + 12 * 25),
        "repeated": Toy(Repeated(), (4, 8, 8), 144 + 2 * 4, 2 * 144 * out),
        "weight norm": Toy(weight_norm(conv(3, 4, 3)), (3, 8, 8), 108 + 4 + 4, 108 * 36),
        "listed": Toy(Listed(), (3, 8, 8), 112 + 148 + 333, 108 * 36 + 144 * 16),
        "dropout in training": Toy(dropping, (3, 8, 8), 112 + 8, 108 * 36),
        "with norm, activation, pooling": Toy(mixed, (3, 8, 8), 112 + 8, 108 * 36),
        "grouped": Toy(conv(4, 6, 3, groups=2), (4, 8, 8), 108 + 6, 108 * 36),
        "depthwise": Toy(conv(4, 4, 3, padding=1, groups=4, bias=False), (4, 8, 8), 36, 36 * out),
        "dilated": Toy(conv(3, 4, 3, stride=2, dilation=2), (3, 9, 9), 112, 108 * 9),
        "1-D": Toy(nn.Conv1d(4, 6, 3, stride=2, groups=2), (4, 9), 36 + 6, 36 * 4),
        "3-D": Toy(nn.Conv3d(2, 3, (1, 2, 3), dilation=2), (2, 4, 7, 9), 36 + 3, 36 * 4 * 5 * 5),
        "asymmetric": Toy(conv(3, 4, (1, 7), padding=(0, 3), bias=False), (3, 8, 8), 84, 84 * out),
        "padded by name": Toy(conv(3, 4, 4, padding="same", dilation=3), (3, 8, 8), 196, 192 * out),
        "circular": Toy(conv(3, 4, 3, padding=1, padding_mode="circular"), (3, 8, 8), 112, 108 * out),
        "transposed 1-D": Toy(nn.ConvTranspose1d(4, 6, 3, stride=2), (4, 9), 72 + 6, 72 * 9),
        "transposed": Toy(nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=False), (4, 5, 7), 108, 108 * 35),
        "transposed 3-D": Toy(nn.ConvTranspose3d(2, 3, 2, 2), (2, 2, 3, 4), 48 + 3, 48 * 24),
        "bilinear": Toy(nn.Bilinear(3, 4, 5), ((3,), (4,)), 65, 60),
        "linear over tokens": Toy(nn.Linear(6, 4), (7, 6), 28, 7 * 24),
        "lstm": Toy(nn.LSTM(3, 5, batch_first=True), (7, 3), 4 * 5 * (3 + 5 + 2), 7 * 4 * 5 * (3 + 5)),
        "gru": Toy(nn.GRU(3, 5, batch_first=True), (7, 3), 3 * 5 * (3 + 5 + 2), 7 * 3 * 5 * (3 + 5)),
        "rnn": Toy(
            nn.RNN(3, 5, 2, bidirectional=True, batch_first=True), (4, 3), 270, 4 * 2 * 5 * (3 + 5 + 10 + 5)
        ),
        "lstm with projection": Toy(
            nn.LSTM(3, 5, proj_size=2, batch_first=True), (4, 3), 20 * (3 + 2 + 2) + 10, 4 * (20 * 5 + 10)
        ),
        "lstm cell": Toy(nn.LSTMCell(3, 5), (3,), 20 * 10, 20 * 8),
        "gru cell": Toy(nn.GRUCell(3, 5), (3,), 15 * 10, 15 * 8),
        "no parameters": Toy(nn.ReLU(), (3, 8, 8), 0, 0),
    }
