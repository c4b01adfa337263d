"""NCSNv2's RefineNet (Song & Ermon 2020): the score network of ADP, without conditioning on the noise level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(wide: int, out: int, kernel: int = 3, dilation: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(wide, out, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=bias)


class InstanceNormPlus(nn.Module):
    """InstanceNorm++ (Song & Ermon 2019, appendix A): instance norm with the relative means of the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.gamma = nn.Parameter(1 + 0.02 * torch.randn(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise features [B, C, H, W]."""
        mean = x.mean((2, 3))
        spread = (mean - mean.mean(1, keepdim=True)) / torch.sqrt(mean.var(1, keepdim=True) + 1e-5)
        h = F.instance_norm(x) + (spread * self.alpha)[:, :, None, None]
        return self.gamma[:, None, None] * h + self.beta[:, None, None]


class _ResidualBlock(nn.Module):
    """Norm, ELU, convolution, twice; `down` halves the image if the dilation is 1."""

    def __init__(self, wide: int, out: int, *, down: bool = False, dilation: int = 1):
        super().__init__()
        middle = wide if down else out
        self.normalize1 = InstanceNormPlus(wide)
        self.conv1 = _conv(wide, middle, 3, dilation)
        self.normalize2 = InstanceNormPlus(middle)
        self.conv2 = _conv(middle, out, 3, dilation)
        self.halve = down and dilation == 1
        self.shortcut: nn.Conv2d | None = None
        if down or wide != out:
            self.shortcut = _conv(wide, out, 1 if dilation == 1 else 3, dilation)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.elu(self.normalize1(x)))
        h = self.conv2(F.elu(self.normalize2(h)))
        short = x if self.shortcut is None else self.shortcut(x)
        if self.halve:
            h, short = F.avg_pool2d(h, 2), F.avg_pool2d(short, 2)
        return h + short  # type: ignore[no-any-return]


class _ResidualConvUnits(nn.Module):
    """`blocks` residual units of two activations and convolutions each."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.convs = nn.ModuleList(_conv(channels, channels, bias=False) for _ in range(2 * blocks))

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs[::2], self.convs[1::2], strict=True):
            x = second(F.elu(first(F.elu(x)))) + x
        return x


class _RefineBlock(nn.Module):
    """Block of RefineNet (Lin et al. 2017): adapt every input, fuse at one size, pool residually, adapt the output.

    Pooling takes the maximum over 5x5 pixels, as in NCSNv2's release.
    """

    def __init__(self, inputs: Sequence[int], out: int, *, end: bool = False):
        super().__init__()
        self.adapt = nn.ModuleList(_ResidualConvUnits(c, 2) for c in inputs)
        self.fuse = nn.ModuleList(_conv(c, out) for c in inputs) if len(inputs) > 1 else None
        self.pools = nn.ModuleList(_conv(out, out, bias=False) for _ in range(2))
        self.output = _ResidualConvUnits(out, 3 if end else 1)

    def forward(self, xs: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        hs = [adapt(x) for adapt, x in zip(self.adapt, xs, strict=True)]
        h = hs[0]
        if self.fuse is not None:
            parts = [conv(x) for conv, x in zip(self.fuse, hs, strict=True)]
            parts = [p if p.shape[2:] == tuple(size) else _resize(p, size) for p in parts]
            h = torch.stack(parts).sum(0)
        h = path = F.elu(h)
        for conv in self.pools:
            path = conv(F.max_pool2d(path, 5, stride=1, padding=2))
            h = h + path
        return self.output(h)  # type: ignore[no-any-return]


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=list(size), mode="bilinear", align_corners=True)


class NCSNv2(nn.Module):
    """RefineNet with ELU and InstanceNorm++, in four stages: the second halves the image, later ones dilate.

    Takes images in [0, 1], scales them to 2x - 1 and returns f without the division by sigma (see `score.py`).

    Args:
        in_channels: C.
        ngf: channels of the first stage.
    """

    def __init__(self, *, in_channels: int = 3, ngf: int = 128):
        super().__init__()
        wide = 2 * ngf
        self.begin_conv = _conv(in_channels, ngf)
        self.res1 = nn.Sequential(_ResidualBlock(ngf, ngf), _ResidualBlock(ngf, ngf))
        self.res2 = nn.Sequential(_ResidualBlock(ngf, wide, down=True), _ResidualBlock(wide, wide))
        self.res3 = self._dilated(wide, 2)
        self.res4 = self._dilated(wide, 4)
        self.refine1 = _RefineBlock([wide], wide)
        self.refine2 = _RefineBlock([wide, wide], wide)
        self.refine3 = _RefineBlock([wide, wide], ngf)
        self.refine4 = _RefineBlock([ngf, ngf], ngf, end=True)
        self.normalizer = InstanceNormPlus(ngf)
        self.end_conv = _conv(ngf, in_channels)

    @staticmethod
    def _dilated(wide: int, dilation: int) -> nn.Sequential:
        first = _ResidualBlock(wide, wide, down=True, dilation=dilation)
        return nn.Sequential(first, _ResidualBlock(wide, wide, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] (H, W even) to f [B, C, H, W]."""
        layer1 = self.res1(self.begin_conv(2 * x - 1))
        layer2 = self.res2(layer1)
        layer3 = self.res3(layer2)
        layer4 = self.res4(layer3)
        h = self.refine1([layer4], layer4.shape[2:])
        h = self.refine2([layer3, h], layer3.shape[2:])
        h = self.refine3([layer2, h], layer2.shape[2:])
        h = self.refine4([layer1, h], layer1.shape[2:])
        return self.end_conv(F.elu(self.normalizer(h)))  # type: ignore[no-any-return]
