"""Contraction of purification around an image: a diagnostic without gradients, beside the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.evaluation.devices import device_of
from defenses.core.defense import Purified
from defenses.core.noise import Draw, Noise
from defenses.core.purify import purify
from defenses.utils.errors import UserError, check_numbers, check_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


def contraction(
    model: Purified, x: Tensor, eps: float, *, directions: int = 4, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the rate ||P(x + d) - P(x)|| / ||d|| of each image, where both see the same noise of one run.

    d has independent signs times eps, as the corners of the Linf ball; x + d is not clipped to [0, 1], so that ||d|| is
    equal for all images. Below 1 the purifier contracts in these directions. The worst direction, which an attack looks
    for, and the classifier do not enter.

    Args:
        model: a purifier before a classifier, as `load_model("adp", dataset="digits")` returns.
        x: images, float32 [N, C, H, W] in [0, 1].
        eps: size of the perturbation of a pixel, above 0.
        directions: number of perturbations of each image, whose rates are averaged.
        seed: of the perturbations, and of the noise of each.

    Returns:
        Rates, float64 [N]; their mean is that of the model.

    Raises:
        UserError: a model without a purifier, images of another shape, or a value out of range.

    Source: after the compression rate of Liu & Wei 2025.
    """
    if not isinstance(model, Purified):
        raise UserError(f"{type(model).__name__} has no purifier; give a purifier before a classifier, as adp")
    check_numbers(eps=eps)
    if eps <= 0:
        raise UserError(f"eps is {eps:g}; it must be above 0")
    check_whole(1, directions=directions)
    check_whole(0, seed=seed)
    x, shape = torch.as_tensor(x), model.input_shape
    if x.ndim != 4 or not len(x) or not x.is_floating_point() or shape not in (None, tuple(x.shape[1:])):
        wanted = "C, H, W" if shape is None else ", ".join(map(str, shape))
        raise UserError(f"images are {x.dtype} {list(x.shape)}; they must be floats [N, {wanted}], one at least")
    if not torch.isfinite(x).all():
        raise UserError("an image has values that are not finite")
    streams = Noise.of(seed, len(x), device_of(model))
    x = x.to(streams.keys.device, torch.float32)
    rates = []
    with torch.no_grad():
        for number in range(directions):
            d = eps * streams.child(0, number).draw(Draw(tuple(x.shape[1:]), "rademacher"))
            noise = streams.child(1, number)
            moved = purify(model.purifier, x + d, noise) - purify(model.purifier, x, noise)
            rates.append(moved.flatten(1).double().norm(dim=1) / d.flatten(1).double().norm(dim=1))
    return torch.stack(rates).mean(0).cpu().numpy()
