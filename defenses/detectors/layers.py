"""Base of detectors on the layers of a classifier: a number per layer, weighted by a regression on FGSM.

Shared by LID (Ma et al. 2018) and Mahalanobis (Lee et al. 2018): the regression separates FGSM's images that fool the
classifier from clean images, with and without uniform noise of the same radius. So the detector is trained on FGSM
alone; every other attack is new to it.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.core.defense import Classifier
from defenses.core.detector import Detector
from defenses.core.noise import Draw, Noise
from defenses.utils.errors import UserError, check_numbers, check_whole

_BATCH = 500


def activations(classifier: Classifier, x: Tensor) -> list[Tensor]:
    """Return the outputs of all convolutions and linear layers, in order of the forward pass, averaged over pixels.

    Args:
        classifier: the classifier; its network makes one pass.
        x: images [B, C, H, W] in [0, 1].

    Returns:
        float32 [B, features] for every layer.

    Raises:
        UserError: the classifier has no such layer.
    """
    features: list[Tensor] = []

    def store(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        features.append(output.mean((2, 3)) if output.dim() == 4 else output.flatten(1))

    layers = [m for m in classifier.network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(store) for m in layers]
    try:
        classifier.network(x)
    finally:
        for handle in handles:
            handle.remove()
    if not features:
        raise UserError("the classifier has neither convolutions nor linear layers, which this detector needs")
    return features


class LayerDetector(Detector):
    """A weighted sum of the layers' numbers: the log-odds of the regression.

    Args:
        eps: Linf radius of FGSM and of the noise, in pixels of [0, 1].
        images: upper bound on the training images; the first half fits the layers' numbers, the second half their
            weights.

    Raises:
        UserError: a value out of range.
    """

    learns = True

    def __init__(self, *, eps: float, images: int):
        super().__init__()
        check_numbers(eps=eps)
        check_whole(100, images=images)
        if not 0 < eps <= 1:
            raise UserError(f"eps is {eps}; it must lie between 0 and 1")
        self.eps, self.images = eps, images

    @abstractmethod
    def learn(self, features: list[Tensor], y: Tensor) -> None:
        """Fit the layers' numbers to the features of clean images, [N, features] each, and labels [N]."""

    @abstractmethod
    def numbers(self, features: list[Tensor]) -> Tensor:
        """Return numbers [B, layers] of features [B, features] each; higher is more suspicious."""

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, classifier: Classifier) -> None:
        """Fit the layers' numbers, then their weights; see the module.

        Args:
            x: clean training images [N, C, H, W] in [0, 1].
            y: labels [N].
            classifier: the classifier.

        Raises:
            UserError: fewer than 100 training images, or FGSM fools the classifier on none.
        """
        if len(x) < 100:
            raise UserError(f"{type(self).__name__} learns from at least 100 training images, and there are {len(x)}")
        x, y = x[: self.images], y[: self.images]
        half = len(x) // 2
        parts = [activations(classifier, a) for a in x[:half].split(_BATCH)]
        self.learn([torch.cat(layer) for layer in zip(*parts, strict=True)], y[:half])
        self._fit_weights(x[half:], y[half:], classifier)

    def _fit_weights(self, x: Tensor, y: Tensor, classifier: Classifier) -> None:
        from sklearn.linear_model import LogisticRegression

        moved = fgsm(classifier, x, y, self.eps)
        noise = Noise.of(0, len(x), x.device)
        noisy = (x + self.eps * (2 * noise.draw(Draw(tuple(x.shape[1:]), "uniform")) - 1)).clamp(0, 1)
        correct, resisted = (_predictions(classifier, a) == y for a in (x, moved))
        fooled = correct & ~resisted
        if not bool(fooled.any()):
            raise UserError(f"FGSM at eps {self.eps:g} fools the classifier on no image, so there is nothing to learn")
        groups = [self._all_numbers(a, classifier) for a in (x, noisy, moved[fooled])]
        values = torch.cat(groups).double()
        adversarial = torch.cat([torch.full((len(g),), float(i == 2)) for i, g in enumerate(groups)])
        mean, spread = values.mean(0), values.std(0).clamp_min(1e-12)
        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        model.fit(((values - mean) / spread).numpy(), adversarial.numpy())
        weight = torch.from_numpy(model.coef_[0]) / spread
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", (torch.tensor(float(model.intercept_[0])) - weight @ mean).float())

    def _all_numbers(self, x: Tensor, classifier: Classifier) -> Tensor:
        return torch.cat([self.numbers(activations(classifier, a)) for a in x.split(_BATCH)])

    def scores(self, x: Tensor, noise: Noise, classifier: Classifier) -> Tensor:
        """Return the log-odds [B]."""
        odds: Tensor = self.numbers(activations(classifier, x)) @ self.weight + self.bias  # type: ignore[operator]
        return odds


def fgsm(classifier: Classifier, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Return images after one step of size `eps` along the signs of the cross-entropy's gradient.

    Args:
        classifier: the attacked classifier.
        x: images [N, C, H, W] in [0, 1].
        y: labels [N].
        eps: Linf radius, in pixels of [0, 1].

    Returns:
        Images [N, C, H, W] in [0, 1].

    Source: Goodfellow et al. 2015.
    """
    moved = []
    for a, b in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
        with torch.enable_grad():
            leaf = a.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(classifier.network(leaf), b, reduction="sum"), leaf)
        moved.append((a + eps * gradient.sign()).clamp(0, 1))
    return torch.cat(moved)


def _predictions(classifier: Classifier, x: Tensor) -> Tensor:
    return torch.cat([classifier.network(a).argmax(1) for a in x.split(_BATCH)])
