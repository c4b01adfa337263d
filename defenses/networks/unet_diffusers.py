"""U-Nets of the diffusers library as noise predictors; they load public weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from defenses.networks.sde import sde_of
from defenses.utils.errors import UserError

STEPS = 999  # time 1 in the networks' steps


class DiffusersUNet(nn.Module):
    """`diffusers.UNet2DModel`, called at continuous times.

    A network of DDPM's thousand steps is used under the VP SDE, whose marginals agree with DDPM's to order 1/1000.

    Args:
        in_channels: C.
        size: H = W.
        config: further arguments of `UNet2DModel`.
        sde: name of the SDE of its training, see `defenses.networks.sde.sde_of`.

    Raises:
        UserError: arguments that `UNet2DModel` does not take.
    """

    def __init__(
        self, *, in_channels: int = 3, size: int = 32, config: Mapping[str, Any] | None = None, sde: str = "vp"
    ):
        super().__init__()
        from diffusers import UNet2DModel

        self.sde = sde_of(sde)
        try:
            self.unet: Any = UNet2DModel(  # type: ignore[no-untyped-call]
                sample_size=size, in_channels=in_channels, out_channels=in_channels, **dict(config or {})
            )
        except (TypeError, ValueError) as error:
            raise UserError(f'network "unet-diffusers": its config does not fit UNet2DModel: {error}') from None

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map noisy data of the SDE [B, C, H, W] and times [B] in [0, 1] to the noise [B, C, H, W]."""
        return self.unet(x, STEPS * t).sample  # type: ignore[no-any-return]
