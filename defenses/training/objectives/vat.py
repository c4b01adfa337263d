"""Virtual adversarial training (Miyato et al. 2018, arXiv 1704.03976): few labels, and many images without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.training.objective import Material, Objective, accuracy, settings_of
from defenses.training.streams import Order, augmented, stream, stream_seed
from defenses.utils.errors import UserError
from defenses.utils.validation import Count, Flag, NotNegative, Positive, Whole


@dataclass(frozen=True)
class VatSettings:
    """Settings of the labels and of the virtual adversarial term.

    The recipe's `batch` counts images of a step without labels, drawn from all training images.

    Args:
        labels: number of labelled training images, as equally many of each class as possible.
        labelled: labelled images of a step.
        eps: L2 length of the perturbation, in pixels of [0, 1]; 0 leaves the term out: the supervised baseline.
        xi: L2 length of the finite difference of the power iteration. The published 1e-6 is lost in the rounding of
            float32 where predictions are confident; see the card.
        power: K, iterations of it.
        weight: of the term.
        entropy: weight of the entropy of predictions without labels; 0 leaves it out.
        shift: see `augmented`.
        flip: see `augmented`.
    """

    labels: Count
    labelled: Count = 32
    eps: NotNegative = 1.0
    xi: Positive = 1e-6
    power: Count = 1
    weight: NotNegative = 1.0
    entropy: NotNegative = 0.0
    shift: Whole = 0
    flip: Flag = False


def stratified(y: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return random positions, as equally many of each class as possible: class counts differ by at most one.

    Args:
        y: labels int64 [N].
        n: number of positions.
        generator: of the choice.

    Returns:
        Ascending positions int64 [n], on the CPU.

    Raises:
        UserError: n is smaller than the number of classes, or larger than a class allows.
    """
    order = torch.randperm(len(y), generator=generator)
    y = y.cpu()[order]
    classes = y.unique()
    share, rest = divmod(n, len(classes))
    if not share:
        raise UserError(f"recipe: labels is {n}; it must be at least {len(classes)}, one of each class")
    chosen = []
    for i, k in enumerate(classes.tolist()):
        of_class, wanted = order[y == k], share + (i < rest)
        if len(of_class) < wanted:
            raise UserError(f"recipe: labels is {n}, {wanted} of class {k}, which has {len(of_class)}; choose fewer")
        chosen.append(of_class[:wanted])
    return torch.cat(chosen).sort().values


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch norm use a batch's statistics without adding them to its running ones."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def _unit(d: Tensor) -> Tensor:
    # Gradients may be as small as xi: scaled first, their squares do not vanish in float32.
    d = d / d.abs().amax((1, 2, 3), keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)
    return F.normalize(d.flatten(1), dim=1, eps=torch.finfo(d.dtype).tiny).view_as(d)


def _divergence(clean: Tensor, logits: Tensor) -> Tensor:
    """Return KL(clean || logits), [B]; only the second has a gradient."""
    p = clean.detach().log_softmax(1)
    return F.kl_div(logits.log_softmax(1), p, reduction="none", log_target=True).sum(1)


def virtual_direction(
    network: nn.Module, x: Tensor, clean: Tensor, generator: torch.Generator, *, xi: float, power: int
) -> Tensor:
    """Return the direction in which the prediction of each image changes most, by power iteration.

    Around an image KL(p(x) || p(x + r)) is r' H r / 2; the gradient at xi d is xi H d, so each iteration multiplies
    by H. It costs `power` forward and backward passes.

    Args:
        network: classifier; its mode is not changed.
        x: images [B, C, H, W] in [0, 1].
        clean: their logits [B, K].
        generator: of the first direction.
        xi: length of the finite difference.
        power: K.

    Returns:
        Directions [B, C, H, W] of L2 length 1, without graph.

    Source: Miyato et al. 2018, section 3.3.
    """
    d = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    for _ in range(power):
        with torch.enable_grad():
            r = (xi * _unit(d)).requires_grad_()
            d = torch.autograd.grad(_divergence(clean, network(x.detach() + r)).sum(), r)[0]
    return _unit(d)


class VatTraining(Objective):
    """Cross-entropy on labelled images, and invariance of predictions in the virtual adversarial direction.

    Ships the last checkpoint, since a choice on validation images would use their labels. Only the labelled pass
    updates the running statistics of batch norm.

    Args:
        network: classifier.
        data: images and labels; only the chosen labels are used.
        seed: seed of the choice of labels, of the batches and directions.
        table: see `VatSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("classifier",)
    table_type: ClassVar[type[Any]] = VatSettings
    settings: VatSettings
    select: ClassVar[str | None] = None

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        self.settings = settings_of(self.table_type, table)
        self.labelled = stratified(data.y, self.settings.labels, stream(seed, "labels"))
        self.order = Order(len(self.labelled), self.settings.labelled, stream_seed(seed, "labelled"))

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`; the labels of the images `index` are not used."""
        s, labelled = self.settings, self.labelled[self.order(step)].to(self.device)
        generator = stream(self.seed, "augment", step, self.device)
        x = augmented(self.data.x[labelled], generator, shift=s.shift, flip=s.flip)
        loss = F.cross_entropy(self.network(x), self.data.y[labelled])
        if (s.eps and s.weight) or s.entropy:
            x = augmented(self.data.x[index], generator, shift=s.shift, flip=s.flip)
            with frozen_statistics(self.network):
                loss = loss + self._without_labels(x, generator)
        return loss

    def _without_labels(self, x: Tensor, generator: torch.Generator) -> Tensor:
        s = self.settings
        clean: Tensor = self.network(x)
        loss = clean.new_zeros(())
        if s.eps and s.weight:
            r = s.eps * virtual_direction(self.network, x, clean, generator, xi=s.xi, power=s.power)
            loss = loss + s.weight * _divergence(clean, self.network(x + r)).mean()
        if s.entropy:
            logp = clean.log_softmax(1)
            loss = loss - s.entropy * (logp.exp() * logp).sum(1).mean()
        return loss

    def validate(self) -> dict[str, float]:
        """Return the clean accuracy."""
        return {"clean": accuracy(self.network, self.data.x_validation, self.data.y_validation)}
