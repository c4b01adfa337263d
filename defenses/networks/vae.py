"""A convolutional variational autoencoder (Kingma & Welling 2014), as in Defense-VAE."""

from __future__ import annotations

from torch import Tensor, nn

from defenses.networks.dcgan import doublings


class VAE(nn.Module):
    """Strided convolutions to mean and log-variance of a latent vector, transposed ones back to pixels.

    Args:
        in_channels: C.
        size: H = W.
        latent: values of a latent vector.
        width: channels of the layers at full resolution; they double towards the latent vector.
    """

    def __init__(self, *, in_channels: int = 1, size: int = 28, latent: int = 128, width: int = 64):
        super().__init__()
        edge, times = doublings(size)
        down: list[nn.Module] = []
        up: list[nn.Module] = [nn.ConvTranspose2d(latent, width * 2 ** (times - 1), edge)]
        wide = in_channels
        for i in range(times):
            out = width * 2**i
            down += [nn.Conv2d(wide, out, 4, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]
            wide = out
        for i in reversed(range(times)):
            out = width * 2 ** (i - 1) if i else in_channels
            up += [nn.BatchNorm2d(wide), nn.ReLU(), nn.ConvTranspose2d(wide, out, 4, stride=2, padding=1)]
            wide = out
        self.encoder = nn.Sequential(*down)
        self.mean = nn.Conv2d(width * 2 ** (times - 1), latent, edge)
        self.log_variance = nn.Conv2d(width * 2 ** (times - 1), latent, edge)
        self.decoder = nn.Sequential(*up)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [B, C, H, W] in [0, 1] to mean and log-variance, [B, latent, 1, 1] each."""
        h = self.encoder(x)
        return self.mean(h), self.log_variance(h)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] in [0, 1] to the decoded mean latent vectors, of the same shape in [0, 1]."""
        return self.decoder(self.encode(x)[0]).sigmoid()  # type: ignore[no-any-return]
