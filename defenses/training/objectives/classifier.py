"""Natural training of a classifier: cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.networks.registry import Role
from defenses.training.objective import Material, Objective, accuracy, settings_of
from defenses.training.streams import augmented, stream
from defenses.utils.validation import Flag, PartShare, Whole


@dataclass(frozen=True)
class ClassifierSettings:
    """Augmentation: shifts in pixels, mirroring; label smoothing in [0, 1)."""

    shift: Whole = 0
    flip: Flag = False
    smoothing: PartShare = 0.0


class NaturalTraining(Objective):
    """Cross-entropy on clean images.

    Args:
        network: classifier.
        data: images and labels.
        seed: seed of the augmentation.
        table: see `ClassifierSettings`.
    """

    trains: ClassVar[tuple[Role, ...]] = ("classifier",)
    table_type: ClassVar[type[Any]] = ClassifierSettings
    settings: ClassifierSettings
    select: ClassVar[str | None] = "clean"

    def __init__(self, network: nn.Module, data: Material, seed: int, table: dict[str, object]):
        super().__init__(network, data, seed)
        self.settings = settings_of(self.table_type, table)

    def loss(self, index: Tensor, step: int) -> Tensor:
        """See `Objective`."""
        s = self.settings
        x = augmented(self.data.x[index], stream(self.seed, "augment", step, self.device), shift=s.shift, flip=s.flip)
        return F.cross_entropy(self.network(x), self.data.y[index], label_smoothing=s.smoothing)

    def validate(self) -> dict[str, float]:
        """Return the clean accuracy."""
        return {"clean": accuracy(self.network, self.data.x_validation, self.data.y_validation)}
