"""Mahalanobis distances (Lee et al., NeurIPS 2018, arXiv 1807.03888)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from defenses.detectors.layers import LayerDetector
from defenses.filters.base import within
from defenses.utils.errors import UserError


def whitening(features: Tensor, y: Tensor, classes: Tensor, *, least: float) -> tuple[Tensor, Tensor]:
    """Return class means, and W with W W^T the inverse of the covariance that all classes share.

    Args:
        features: [N, F].
        y: labels [N].
        classes: the labels that occur, ascending [K].
        least: directions with less variance than this share of the largest are dropped.

    Returns:
        (means [K, F], W [F, at most F]).
    """
    means = torch.stack([features[y == c].mean(0) for c in classes])
    centred = features - means[torch.searchsorted(classes, y)]
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
    large = values > least * values[-1]
    return means, vectors[:, large] / values[large].sqrt()


def distance(features: Tensor, means: Tensor, whiten: Tensor) -> Tensor:
    """Return the squared Mahalanobis distance to the nearest class mean.

    Args:
        features: [B, F].
        means: [K, F], see `whitening`.
        whiten: W, see `whitening`.

    Returns:
        Distances [B].
    """
    gaps = ((features[:, None] - means) @ whiten).square().sum(2)
    return gaps.amin(1)


class Mahalanobis(LayerDetector):
    """The distance of every layer's features to the nearest class, for normal classes with one covariance.

    Without the paper's input preprocessing, which lowers the distance of clean images.

    Args:
        least: see `whitening`.
        eps: see `LayerDetector`.
        images: see `LayerDetector`.

    Raises:
        UserError: a value out of range.
    """

    def __init__(self, *, least: float, eps: float, images: int):
        super().__init__(eps=eps, images=images)
        within("least", least, 0, 1)
        if least == 1:
            raise UserError("least is 1, so that no direction is left; it must be less")
        self.least = least

    def learn(self, features: list[Tensor], y: Tensor) -> None:
        """Fit means and covariance of every layer."""
        classes = y.unique()
        for i, layer in enumerate(features):
            means, whiten = whitening(layer.double(), y, classes, least=self.least)
            self.register_buffer(f"means_{i}", means.float())
            self.register_buffer(f"whiten_{i}", whiten.float())

    def numbers(self, features: list[Tensor]) -> Tensor:
        """Return the distance of every layer [B, layers]."""
        parts = [(f, self.get_buffer(f"means_{i}"), self.get_buffer(f"whiten_{i}")) for i, f in enumerate(features)]
        return torch.stack([distance(*part) for part in parts], 1)


def build(network: object, **parameters: Any) -> Mahalanobis:
    """Return `Mahalanobis`, which has no network."""
    return Mahalanobis(**parameters)
