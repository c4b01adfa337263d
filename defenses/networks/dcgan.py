"""Generators and discriminators after DCGAN (Radford et al. 2016, arXiv 1511.06434): strides in place of pooling."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.utils.errors import UserError


def doublings(size: int) -> tuple[int, int]:
    """Return (edge of the smallest map, number of doublings) for images of an edge: (4, 3) for 32.

    Args:
        size: edge of the images in pixels.

    Raises:
        UserError: the edge is not 2 to 7 doubled at least twice.
    """
    edge, times = size, 0
    while edge % 2 == 0 and (edge > 7 or times < 2):
        edge, times = edge // 2, times + 1
    if not (2 <= edge <= 7 and times >= 2):
        raise UserError(f"size is {size}; it must be 2 to 7 doubled at least twice, as 8, 28 or 32")
    return edge, times


class Generator(nn.Module):
    """Transposed convolutions with batch norm and ReLU from a latent vector to an image; tanh, no norm, at the end.

    Args:
        in_channels: C of the images.
        size: H = W of the images.
        latent: values of a latent vector.
        width: channels before the last layer; they double towards the first.
    """

    def __init__(self, *, in_channels: int = 3, size: int = 32, latent: int = 128, width: int = 64):
        super().__init__()
        edge, times = doublings(size)
        self.latent = latent
        wide = width * 2 ** (times - 1)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, wide, edge, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        for _ in range(times - 1):
            layers += [nn.ConvTranspose2d(wide, wide // 2, 4, stride=2, padding=1, bias=False)]
            wide //= 2
            layers += [nn.BatchNorm2d(wide), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(wide, in_channels, 4, stride=2, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Map latent vectors [B, latent] to images [B, C, H, W] in [-1, 1]."""
        return self.body(z[:, :, None, None]).tanh()  # type: ignore[no-any-return]


def discriminator(*, in_channels: int = 3, size: int = 32, width: int = 64, norm: bool = True) -> nn.Sequential:
    """Return strided convolutions with LeakyReLU(.2), with batch norm after all but the first and the last.

    Args:
        in_channels: C.
        size: H = W.
        width: channels of the first layer; they double from layer to layer.
        norm: use batch norm; a gradient penalty needs a critic without it, whose images are independent.

    Returns:
        A network, images [B, C, H, W] in [-1, 1] -> values [B].

    Raises:
        UserError: see `doublings`.
    """
    edge, times = doublings(size)
    layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    wide = width
    for _ in range(times - 1):
        layers += [nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1, bias=not norm)]
        wide *= 2
        layers += [nn.BatchNorm2d(wide)] if norm else []
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(wide, 1, edge), nn.Flatten(0))
