"""Small models that do what estimators built on hooks trip over: one trap each, as rows of `families.FAMILIES`."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from tests.cases import VOCABULARY, Classifier

WIDTH = 8


class Tokens(nn.Module):
    """Words, mixed as the subclass says, averaged over the real tokens, to logits."""

    def __init__(self, classes: int, **parts: nn.Module | nn.Parameter):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        for name, part in parts.items():
            setattr(self, name, part)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Logits (N, K) of texts padded on the right."""
        real = attention_mask[..., None].to(self.head.weight.dtype)
        states = self.mix(self.words(input_ids), real)
        return SimpleNamespace(logits=self.head((states * real).sum(1) / real.sum(1)))


class Prefix(nn.Module):
    """A learned first token and learned positions that are no modules of their own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(20, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions[: x.shape[1] + 1]


class Bare(Tokens):
    """A parameter of the model itself, and some inside something like an embedding."""

    def __init__(self, classes: int):
        super().__init__(classes, scale=nn.Parameter(torch.ones(WIDTH)), prefix=Prefix(), inner=nn.Linear(WIDTH, WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        states = self.inner(torch.tanh(self.prefix(x)))
        return torch.tanh(states[:, 1:] * states[:, :1]) * self.scale


class BiasTable(Tokens):
    """Attention with a table looked up by distance: (T, T) has no batch axis, though with T = N it seems to."""

    def __init__(self, classes: int):
        super().__init__(classes, query=nn.Linear(WIDTH, WIDTH), distances=nn.Embedding(7, 1))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        bias = self.distances((place - place[:, None]).clamp(-3, 3) + 3).squeeze(-1)
        scores = self.query(x) @ x.mT + bias
        return scores.masked_fill(real.mT == 0, -1e9).softmax(-1) @ x


class Borrowed(Tokens):
    """Weights of modules whose hooks never fire: one lent to F.linear, one used through `forward` itself."""

    def __init__(self, classes: int):
        super().__init__(classes, lender=nn.Linear(WIDTH, WIDTH, bias=False), unseen=nn.Linear(WIDTH, WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        return torch.tanh(F.linear(torch.tanh(self.unseen.forward(x)), self.lender.weight))


class BothWays(Tokens):
    """One weight through its module, and transposed through F.linear."""

    def __init__(self, classes: int):
        super().__init__(classes, inner=nn.Linear(WIDTH, WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.inner(x)), self.inner.weight.T)


class Attention(Tokens):
    """Torch's own attention: a tuple comes out, and its output layer's weight is used without calling that layer."""

    def __init__(self, classes: int):
        super().__init__(classes, attention=nn.MultiheadAttention(WIDTH, 2, batch_first=True))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        return self.attention(x, x, x, key_padding_mask=real[..., 0] == 0)[0]


class EncoderLayer(Tokens):
    """Torch's own block on fixed inputs: where no weight requires gradients, it takes a path that has none."""

    def __init__(self, classes: int):
        super().__init__(classes, block=nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True))
        self.words = nn.Identity()

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        x = F.one_hot(x % WIDTH, WIDTH).to(real.dtype)
        return self.block(x, src_key_padding_mask=real[..., 0] == 0)


class SeqFirst(Tokens):
    """Length before batch, where only the layers' user knows which axis is which."""

    def __init__(self, classes: int):
        super().__init__(classes, inner=nn.Linear(WIDTH, WIDTH), norm=nn.LayerNorm(WIDTH), last=nn.RMSNorm(WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        x = self.norm(torch.tanh(self.inner((x * real).transpose(0, 1))))
        return self.last(x.cumsum(0)).transpose(0, 1)


class Recurrent(Tokens):
    """One weight, used at every step inside one call that returns a tuple, length first."""

    def __init__(self, classes: int):
        super().__init__(classes, memory=nn.GRU(WIDTH, WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        return self.memory(x.transpose(0, 1))[0].transpose(0, 1)


class Lengths(Tokens):
    """One layer on (N, T, D), on every other token of it, and on (N, D)."""

    def __init__(self, classes: int):
        super().__init__(classes, inner=nn.Linear(WIDTH, WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        mean = (x * real).sum(1) / real.sum(1)
        thinned = torch.tanh(self.inner(x[:, ::2])) * real[:, ::2]
        return torch.tanh(self.inner(x)) + (torch.tanh(self.inner(mean)) + thinned.sum(1))[:, None]


class Packed(Tokens):
    """Padding is cut out before the layer: (real tokens of all examples, D), whatever N is."""

    def __init__(self, classes: int):
        super().__init__(classes, inner=nn.Linear(WIDTH, WIDTH), norm=nn.LayerNorm(WIDTH))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        kept = real[..., 0] > 0
        return torch.zeros_like(x).masked_scatter(kept[..., None], self.norm(torch.tanh(self.inner(x[kept]))))


class InPlace(Tokens):
    """What an embedding and a Linear returned is overwritten."""

    def __init__(self, classes: int):
        parts = {"inner": nn.Linear(WIDTH, WIDTH), "outer": nn.Linear(WIDTH, WIDTH), "places": nn.Embedding(20, WIDTH)}
        super().__init__(classes, **parts)

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        x += self.places(torch.arange(x.shape[1]))
        states = self.outer(self.inner(x).relu_())
        states += x
        return states.mul_(real)


class Keywords(nn.Module):
    """Takes its inputs by name, in a dict and a tuple, and gives its outputs likewise."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(WIDTH))
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, *, states: dict[str, Tensor], pair: tuple[Tensor, float]) -> dict[str, tuple[Tensor, ...]]:
        left, factor = pair
        return {"out": (self.inner(input=left) * factor, torch.tanh(states["x"]) @ self.weight)}


class Arguments(Tokens):
    """A module called with nested arguments by name; its two outputs are both used."""

    def __init__(self, classes: int):
        super().__init__(classes, nested=Keywords())

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        first, second = self.nested(states={"x": x}, pair=(x * real, 0.5))["out"]
        return first * second


class Convolved(Tokens):
    """Grouped and depthwise convolutions along the text, and a layer whose weight is computed from two others."""

    def __init__(self, classes: int):
        grouped, depthwise = nn.Conv1d(WIDTH, 12, 3, padding=1, groups=4), nn.Conv1d(12, 12, 3, padding=1, groups=12)
        super().__init__(classes, grouped=grouped, depthwise=depthwise, last=weight_norm(nn.Linear(12, WIDTH)))

    def mix(self, x: Tensor, real: Tensor) -> Tensor:
        x = torch.tanh(self.grouped((x * real).mT)) * real.mT
        return self.last(torch.tanh(self.depthwise(x)).mT)


class Pictures(nn.Sequential):
    """Layers on images, averaged over the pixels to logits."""

    def __init__(self, classes: int, *layers: nn.Module):
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(classes))
        super().forward(torch.zeros(1, 1, 8, 8))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Logits (N, K) of images (N, 1, 8, 8)."""
        return SimpleNamespace(logits=super().forward(pixel_values))


def convolutions(classes: int) -> nn.Module:
    """Strides, groups, dilation, a border that is not zeros, and a transposed one."""
    reflected = nn.Conv2d(1, 6, 3, padding=1, padding_mode="reflect")
    grouped = nn.Conv2d(6, 8, (3, 2), stride=2, padding=1, groups=2, bias=False)
    depthwise = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=8)
    return Pictures(
        classes, reflected, nn.Tanh(), grouped, nn.Tanh(), depthwise, nn.Tanh(), nn.ConvTranspose2d(8, 4, 2)
    )


def norms(classes: int) -> nn.Module:
    """Norms over groups, single channels, whole images and the running statistics of a training."""
    layers = [nn.GroupNorm(2, 6), nn.Tanh(), nn.InstanceNorm2d(6, affine=True), nn.LayerNorm([6, 4, 4])]
    return Pictures(classes, nn.Conv2d(1, 6, 2, stride=2), *layers, nn.Tanh(), nn.BatchNorm2d(6), nn.Tanh())


def overwritten(classes: int) -> nn.Module:
    """Activations that overwrite what a convolution and a norm returned."""
    layers = [nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4), nn.SiLU(inplace=True)]
    return Pictures(classes, nn.Conv2d(1, 4, 3), *layers)


class Others(Classifier):
    """Layers that no estimator has a rule for: of two inputs, and with a learned slope."""

    def __init__(self, classes: int):
        super().__init__(
            first=nn.Linear(5, 6), slope=nn.PReLU(6), both=nn.Bilinear(6, 5, 4), head=nn.Linear(4, classes)
        )

    def forward(self, x: Tensor) -> SimpleNamespace:
        """Logits (N, K) of features (N, 5)."""
        return SimpleNamespace(logits=self.head(self.both(self.slope(self.first(x)), x)))
