"""Local intrinsic dimensionality (Ma et al., ICLR 2018, arXiv 1801.02613)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defenses.detectors.layers import LayerDetector
from defenses.utils.errors import UserError, check_whole

_MIN_DISTANCE = 1e-12  # an image may be one of the reference


def dimension(points: Tensor, reference: Tensor, neighbours: int) -> Tensor:
    """Return the maximum-likelihood estimate of the local intrinsic dimensionality.

    -(mean of log(r_i / r_k) over i = 1..k)^-1 with r_i the distance of the i-th nearest point of the reference.

    Args:
        points: [B, features].
        reference: [R, features].
        neighbours: k, at most R.

    Returns:
        Estimates [B].

    Source: Ma et al. 2018, equation 4 (Amsaleg et al. 2015).
    """
    # Not by a matrix product, which is inexact for short distances.
    distances = torch.cdist(points, reference, compute_mode="donot_use_mm_for_euclid_dist")
    near = distances.topk(neighbours, largest=False).values.clamp_min(_MIN_DISTANCE)
    logs = near.log()
    estimate: Tensor = 1 / (logs[:, -1] - logs.mean(1)).clamp_min(1e-6)
    return estimate


class LID(LayerDetector):
    """The local intrinsic dimensionality of every layer's features among those of reference images.

    Args:
        neighbours: k.
        reference: number of reference images; the paper uses the other images of a batch.
        eps: see `LayerDetector`.
        images: see `LayerDetector`.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, neighbours: int, reference: int, eps: float, images: int):
        super().__init__(eps=eps, images=images)
        check_whole(2, neighbours=neighbours, reference=reference)
        if neighbours >= reference:
            text = f"neighbours is {neighbours} and reference {reference}"
            raise UserError(f"{text}; there must be more reference images than neighbours")
        self.neighbours, self.reference = neighbours, reference

    def learn(self, features: list[Tensor], y: Tensor) -> None:
        """Store the features of the first images as the reference."""
        if len(features[0]) < self.reference:
            raise UserError(f"LID has {len(features[0])} images for a reference of {self.reference}; set it lower")
        for i, layer in enumerate(features):
            self.register_buffer(f"reference_{i}", layer[: self.reference].clone())

    def numbers(self, features: list[Tensor]) -> Tensor:
        """Return the dimensionality of every layer [B, layers]."""
        estimates = [dimension(f, self.get_buffer(f"reference_{i}"), self.neighbours) for i, f in enumerate(features)]
        return torch.stack(estimates, 1)


def build(network: object, **parameters: Any) -> LID:
    """Return `LID`, which has no network."""
    return LID(**parameters)
