"""Interface of defenses: a classifier, a purified classifier, and a user-defined module as defenses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from defenses.core.backward import purified, repeated
from defenses.core.gradient_modes import check_mode, modes_of, variant
from defenses.core.noise import Noise
from defenses.core.purifier import Purifier
from defenses.core.purify import purify
from defenses.utils.errors import UserError, check_whole
from defenses.utils.isolation import seeded_globals

Combine = Literal["softmax-mean", "logit-mean"]


@dataclass(frozen=True)
class Prediction:
    """A draw of a defense's decision.

    Args:
        logits: float32 [B, K].
        rejected: bool [B], images that the defense refuses to classify.
        scores: float32 [B] of the detector, higher for more suspicious images; None: the defense has no detector.
    """

    logits: Tensor
    rejected: Tensor
    scores: Tensor | None = None


class Defense(nn.Module, ABC):
    """A deployed defense: images float32 [B, C, H, W] in [0, 1] -> logits [B, K].

    Subclasses implement `logits`. A defense is always in evaluation mode, and its noise is an argument: the same
    noise gives the same output, and a call uses no global random generator. Calling the module itself draws fresh
    noise.

    Attributes:
        stochastic: True if the output depends on the noise.
        gradients: the gradient modes that `logits` supports.
        num_classes: K, where known.
        input_shape: (C, H, W), where the defense takes one shape alone.
    """

    stochastic: bool = False
    gradients: tuple[str, ...] = ("exact",)
    num_classes: int | None = None
    input_shape: tuple[int, int, int] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self.seed = 0

    @abstractmethod
    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Return the logits of one draw for every image.

        Args:
            x: images, float32 [B, C, H, W] in [0, 1].
            noise: B streams.
            gradient: gradient mode of the backward pass (`defenses.core.gradient_modes.MODES`); the forward values are
                those of the deployed defense, except under "surrogate" and "blind".
            runs: number of runs that a prediction combines; None: the deployed number.

        Returns:
            Logits [B, K].
        """

    def decide(self, x: Tensor, noise: Noise) -> Prediction:
        """Return a draw of the deployed decision. Only defenses that can refuse an image override this."""
        logits = self.logits(x, noise)
        return Prediction(logits, torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks whose passes are the defense's cost. Default: the direct children."""
        return list(self.children())

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, K] under fresh noise: call n of a defense draws stream n of its `seed`."""
        self._calls += 1
        return self.logits(x, Noise.of(self.seed, len(x), x.device).child(self._calls))

    def train(self, mode: bool = True) -> Defense:  # noqa: ARG002
        """Stay in evaluation mode: attack libraries switch modes, and a defense has only one."""
        return super().train(False)


class Classifier(Defense):
    """A network as a deterministic defense.

    Args:
        network: module from images [B, C, H, W] in [0, 1] to logits [B, K].
        num_classes: K.
        input_shape: (C, H, W).
    """

    def __init__(self, network: nn.Module, *, num_classes: int, input_shape: tuple[int, int, int]):
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.input_shape = input_shape
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """Return the network's logits; see `Defense.logits`."""
        return self.network(x)  # type: ignore[no-any-return]


class Purified(Defense):
    """A purifier before a classifier: S runs, each purified with its own noise and classified, then combined.

    Args:
        purifier: the purifier.
        classifier: the deterministic defense behind it.
        runs: S, number of runs that a prediction combines.
        combine: "softmax-mean" gives the log of the mean softmax, "logit-mean" the mean of the logits.
        rows: at most this many images are purified at once without a gradient (memory).
        autoencoder: network from images [B, C, H, W] in [0, 1] to the same; it takes the purifier's place backward
            under "bpda-autoencoder".

    Raises:
        UserError: a bad value of `runs`, `rows` or `combine`.
    """

    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        *,
        runs: int = 1,
        combine: Combine = "softmax-mean",
        rows: int = 4096,
        autoencoder: nn.Module | None = None,
    ):
        super().__init__()
        check_whole(1, runs=runs, rows=rows)
        if combine not in ("softmax-mean", "logit-mean"):
            raise UserError(f'combine is "{combine}"; it must be "softmax-mean" or "logit-mean"')
        self.purifier, self.classifier = purifier, classifier
        self.runs, self.combine, self.rows, self.autoencoder = runs, combine, rows, autoencoder
        self.gradients = modes_of(purifier, autoencoder=autoencoder is not None)
        self.num_classes, self.input_shape = classifier.num_classes, classifier.input_shape
        spec = purifier.noise(classifier.input_shape or (1, 1, 1))
        self.stochastic = bool(spec.start or spec.step)
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Return the logits of combined runs; see `Defense.logits`.

        Raises:
            UserError: a gradient mode that the defense lacks.
        """
        differentiated = torch.is_grad_enabled() and x.requires_grad
        if differentiated or gradient != "exact":  # defenses without an exact gradient still give values
            check_mode(gradient, self.gradients)
        if gradient == "blind":
            return self.classifier.logits(x, noise)
        n = self.runs if runs is None else runs
        streams = noise.copies(n)
        if differentiated:
            image = purified(self.purifier, x, streams, gradient, runs=n, autoencoder=self.autoencoder)
            return self._combined(self.classifier.logits(image, streams), n)
        purifier = variant(self.purifier, gradient) if gradient.startswith("surrogate") else self.purifier
        parts = zip(repeated(x, n).split(self.rows), streams.keys.split(self.rows), strict=True)
        logits = [self.classifier.logits(purify(purifier, c, Noise(k)), Noise(k)) for c, k in parts]
        return self._combined(torch.cat(logits), n)

    def cost_modules(self) -> list[nn.Module]:
        """Return the networks of the purifier, of the classifier, and the autoencoder."""
        autoencoder = [] if self.autoencoder is None else [self.autoencoder]
        return self.purifier.cost_modules() + self.classifier.cost_modules() + autoencoder

    def _combined(self, logits: Tensor, n: int) -> Tensor:
        if n == 1:
            return logits
        by_run = logits.view(-1, n, logits.shape[-1])
        if self.combine == "logit-mean":
            return by_run.mean(1)
        return by_run.log_softmax(-1).logsumexp(1) - torch.log(torch.tensor(float(n), device=logits.device))


class UserModule(Defense):
    """A user-defined module as a defense.

    A stochastic module uses the global random generators: they are forked and seeded for each call, so a draw depends
    on the whole batch and not on its own row alone.

    Args:
        module: module from images [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; the mode of its parts
            stays as it is, so that dropout may be meant.
        stochastic: True if two calls may differ.
        num_classes: K, where known.
    """

    def __init__(self, module: nn.Module, *, stochastic: bool, num_classes: int | None = None):
        super().__init__()
        self.module = module
        self.stochastic = stochastic
        self.num_classes = num_classes

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """Return the module's logits; see `Defense.logits`."""
        if not self.stochastic:
            return self.module(x)  # type: ignore[no-any-return]
        with seeded_globals(noise.seed(), x.device):
            return self.module(x)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> UserModule:  # noqa: ARG002
        """Leave the modes of the module as they are."""
        return self
