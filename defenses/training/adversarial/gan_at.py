"""GAN adversarial network (Wang & Yu, ICLR 2019, arXiv 1905.09591): a generator of noise against the classifier."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from defenses.networks.registry import build_network, data_args
from defenses.training.adversarial.attacks import pgd
from defenses.training.adversarial.awp import preserved_buffers
from defenses.training.adversarial.base import AdversarialTraining, CommonSettings
from defenses.training.objective import Material, accuracy
from defenses.training.streams import stream, stream_seed
from defenses.utils.validation import Count, NotNegative, Number, PartShare, Positive


@dataclass(frozen=True, kw_only=True)
class GanAtSettings(CommonSettings):
    """Settings of the generator and the gradient term.

    Args:
        gamma: weight of the gradient term, of either sign; 0 leaves it out.
        virtual_step: h, the generator's step in it (published: a tenth of the classifier's learning rate).
        generator: arguments of `NoiseGenerator`.
        generator_optimizer: "adam" (betas .5 and .999) or "sgd".
        generator_lr: its learning rate.
        generator_momentum: of SGD.
        generator_decay: L2 penalty of the generator.
        generator_steps: its steps on every batch, before the step of the classifier.
        classifier_every: n; the classifier makes a step on every n-th batch and the generator trains alone on the
            others (published for MNIST: 5).
        statistics: of batch norm where the classifier is attacked: "running", as deployed, or "batch", as in the
            reference; validation then measures both.
    """

    gamma: Number = 0.01
    virtual_step: Positive = 0.01
    generator: Mapping[str, Count] = field(default_factory=dict)
    generator_optimizer: Literal["adam", "sgd"] = "adam"
    generator_lr: Positive = 2e-3
    generator_momentum: PartShare = 0.9
    generator_decay: NotNegative = 1e-5
    generator_steps: Count = 5
    classifier_every: Count = 1
    statistics: Literal["running", "batch"] = "running"


class GanAdversarialTraining(AdversarialTraining):
    """Classifier: min CE(x) + CE(x + eps G(x)); generator: max the second term. G takes and gives [-1, 1].

    The gradient term adds gamma (g2 - g3) / h to the classifier's gradient, g2 and g3 that of the second term before
    and after a step h of the generator. It is about -gamma/2 times the gradient of ||dL/dG||^2, so a positive gamma,
    the published one, rewards a classifier that gives the generator large gradients. x + eps G(x) is not clipped.

    A batch has `generator_steps` passes forward and backward through both networks; where the classifier makes its
    step two through it, and for gamma other than 0 one more through both and one through the classifier.
    """

    table_type: ClassVar[type[CommonSettings]] = GanAtSettings
    settings: GanAtSettings

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed, table)
        s = self.settings
        c, h, w = data.x.shape[1:]
        args = {**data_args("noise-generator", (c, h, w), 0), **s.generator}
        weights = stream_seed(seed, "generator")
        self.generator = build_network("noise-generator", seed=weights, **args).to(self.device).train()
        self.optimizer = self._optimizer()
        self._after_virtual_step: Tensor | None = None

    def _optimizer(self) -> torch.optim.Optimizer:
        s, weights = self.settings, list(self.generator.parameters())
        if s.generator_optimizer == "adam":
            return torch.optim.Adam(weights, lr=s.generator_lr, betas=(0.5, 0.999), weight_decay=s.generator_decay)
        decay = s.generator_decay
        return torch.optim.SGD(weights, lr=s.generator_lr, momentum=s.generator_momentum, weight_decay=decay)

    def _moves(self, step: int) -> bool:
        """Return True if the classifier makes its step."""
        return (step + 1) % self.settings.classifier_every == 0

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`; where the generator trains alone, the classifier gets no gradient."""
        if self._moves(step):
            return super().loss(index, step)
        x, y, _ = self.batch(index, step)
        self._train_generator(x, y)
        return torch.zeros((), device=self.device, requires_grad=True)

    def after(self, step: int) -> None:
        """See `Objective`; only where the classifier has made its step."""
        if self._moves(step):
            super().after(step)

    def _train_generator(self, x: Tensor, y: Tensor) -> None:
        with self._attacked_statistics(self.network):
            for _ in range(self.settings.generator_steps):
                for p, g in zip(self.generator.parameters(), self._slope(x, y), strict=True):
                    p.grad = -g
                self.optimizer.step()

    def attack(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Train the generator on the batch, and return its images."""
        self._train_generator(x, y)
        s, weights = self.settings, dict(self.generator.named_parameters())
        if s.gamma:
            with self._attacked_statistics(self.network):
                slope = self._slope(x, y)
                with torch.no_grad():
                    moved = {
                        n: p + s.virtual_step * (g - s.generator_decay * p)
                        for (n, p), g in zip(weights.items(), slope, strict=True)
                    }
                    self._after_virtual_step = x + s.eps * functional_call(self.generator, moved, (2 * x - 1,))
        with torch.no_grad():
            return self._attacked(x)

    def _attacked(self, x: Tensor) -> Tensor:
        step: Tensor = self.generator(2 * x - 1)
        return x + self.settings.eps * step

    def _slope(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return the gradient of the classifier's loss on the generator's images, in the generator's weights."""
        loss = F.cross_entropy(self.network(self._attacked(x)), y)
        return torch.autograd.grad(loss, list(self.generator.parameters()))

    @contextlib.contextmanager
    def _attacked_statistics(self, network: nn.Module) -> Any:
        """Give a network the statistics of the setting, and restore its own at the end of the context."""
        before = network.training
        network.train(self.settings.statistics == "batch")
        with preserved_buffers(network):
            yield
        network.train(before)

    def loss_at(self, x: Tensor, at: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return a scalar with the gradient g1 + g2 + gamma (g2 - g3) / h."""
        s = self.settings
        clean, noisy = F.cross_entropy(self.network(x), y), F.cross_entropy(self.network(at), y)
        if self._after_virtual_step is None:
            return clean + noisy
        moved = F.cross_entropy(self.network(self._after_virtual_step), y)
        return clean + noisy + s.gamma / s.virtual_step * (noisy - moved)

    def validate(self) -> dict[str, float]:
        """Return clean and robust accuracy as deployed; with "batch" also with the statistics of batches of 100."""
        metrics = super().validate()
        if self.settings.statistics == "batch":
            metrics |= self._with_batch_statistics()
        return metrics

    def _with_batch_statistics(self) -> dict[str, float]:
        s, n, network = self.full, self.full.validation_images, self.deployed
        generator = stream(self.seed, "validation", 0, self.device)
        hits = clean = 0.0
        with self._attacked_statistics(network):
            pairs = zip(
                torch.split(self.data.x_validation[:n], 100), torch.split(self.data.y_validation[:n], 100), strict=True
            )
            for x, y in pairs:
                at = pgd(network, x, y, generator, eps=s.eps, step=s.eps / 4, iterations=s.validation_iterations)
                clean += len(x) * accuracy(network, x, y)
                hits += len(x) * accuracy(network, at, y)
        images = len(self.data.x_validation[:n])
        return {"clean_batch": clean / images, "robust_batch": hits / images}

    def state(self) -> dict[str, Any]:
        """Return the average, the generator and its optimizer."""
        generator = {"generator": self.generator.state_dict(), "generator_optimizer": self.optimizer.state_dict()}
        return {**super().state(), **generator}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Objective`."""
        super().restore(state)
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["generator_optimizer"])
