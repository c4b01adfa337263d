"""An image after each step of its purification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from defenses.core.defense import Purified
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.steps import advance, start, step_noise
from defenses.utils.arrays import F32, F64
from defenses.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Trajectory:
    """An image along its purification.

    Args:
        states: the image as it is given and after each step, float32 [T + 1, C, H, W] in [0, 1].
        values: a number of each state, float64 [T + 1].
        label: what the numbers are: "energy", "norm of the score" or "change from the image".
    """

    states: F32
    values: F64
    label: str


@torch.no_grad()
def purification_trajectory(defense: nn.Module, image: Any, *, seed: int = 0) -> Trajectory:
    """Return an image after each step of one purification, with the energy or the norm of the score along it.

    Args:
        defense: a purifier before a classifier, as `load_model` makes it, or a `Purifier` alone.
        image: [C, H, W] in [0, 1], a tensor or array.
        seed: of the noise.

    Returns:
        The image and all states; a step after the purifier has ended changes nothing.

    Raises:
        UserError: a defense without a purifier, or an image of another shape.
    """
    purifier = defense.purifier if isinstance(defense, Purified) else defense
    if not isinstance(purifier, Purifier):
        raise UserError(f"{type(defense).__name__} has no purifier; give one as load_model('adp') makes it")
    x = torch.as_tensor(image, dtype=torch.float32)
    if x.ndim != 3:
        raise UserError(f"the image is {list(x.shape)}; it must be one image, [C, H, W]")
    wanted = defense.input_shape if isinstance(defense, Purified) else None
    if wanted and tuple(x.shape) != tuple(wanted):
        raise UserError(f"the image is {list(x.shape)}; this defense takes {list(wanted)}")
    x = x[None].to(next((p.device for p in purifier.parameters()), x.device))
    noise = Noise.of(seed, 1, x.device)
    state, ctx = start(purifier, x, noise)
    z, images = step_noise(purifier, x, noise), [x]
    for k in range(purifier.steps):
        state = advance(purifier, state, ctx, range(k, k + 1), z)
        images.append(purifier.finish(state, ctx))
    states = torch.cat(images)
    values, label = _values(purifier, states)
    return Trajectory(states.clamp(0, 1).cpu().numpy(), values.double().cpu().numpy(), label)


def _values(purifier: Purifier, states: Tensor) -> tuple[Tensor, str]:
    """Return a number of each state [T + 1, C, H, W], and what it is."""
    energy: Callable[[Tensor], Tensor] | None = getattr(getattr(purifier, "gradient", None), "energy", None)
    if energy is not None:
        return energy(2 * states - 1).flatten(), "energy"
    if (direction := purifier.score_direction()) is not None:
        return direction(states).flatten(1).norm(dim=1), "norm of the score"
    return (states - states[:1]).flatten(1).norm(dim=1), "change from the image"
