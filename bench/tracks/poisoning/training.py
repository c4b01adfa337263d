"""Train a victim on poisoned data, and classify clean and triggered images with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.tracks.poisoning.attacks import poisoned
from bench.tracks.poisoning.board import PoisonBoard, Trial
from defenses.core.defense import Classifier, Defense, Purified
from defenses.core.noise import Noise
from defenses.core.purify import purify
from defenses.data.dataset import Dataset, load_dataset
from defenses.training.objective import Material
from defenses.training.streams import stream_seed
from defenses.training.train import fit_recipe
from defenses.utils.errors import UserError
from defenses.utils.parameters import decode
from defenses.utils.precision import multiplied_in
from defenses.zoo.checkpoints import load_classifier
from defenses.zoo.registry import load_model

if TYPE_CHECKING:
    from torch import nn

_ROWS = 1024  # images purified at once; bounds memory


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained victim.

    Args:
        network: trained, on the CPU.
        poisoned: number of poisoned training images.
        validation: its accuracy on clean validation images, not purified.
    """

    network: nn.Module
    poisoned: int
    validation: float


@dataclass(frozen=True)
class Answers:
    """Predicted classes of all test images, int [N], clean and triggered."""

    clean: list[int]
    triggered: list[int]


class Trainer:
    """Data and purifiers of a board, loaded once.

    Args:
        board: the board.
        weights_root: where weights are looked for first.
        data_root: where data sets lie.

    Raises:
        UserError: data or weights are missing, or a purifier of the board is none.
    """

    def __init__(self, board: PoisonBoard, *, weights_root: Path | None = None, data_root: Path | None = None):
        self.board = board
        load: Callable[[str], Dataset] = partial(load_dataset, board.dataset, root=data_root)
        self.train, self.held, self.test = load("train"), load("validation"), load("test")
        self.network = partial(load_classifier, dataset=board.dataset, root=weights_root, data_root=data_root)
        roots: dict[str, Any] = {"weights_root": weights_root, "data_root": data_root}
        self.purifiers: Mapping[str, Purified] = {
            ref.label: _require_purifier(load_model(ref.name, board.dataset, **roots, **decode(ref.params)), ref.label)
            for ref in board.purifiers
        }

    def victim(self, trial: Trial, checkpoint: Path) -> Victim:
        """Poison the training images, purify them where the trial says so, and train.

        Args:
            trial: of the board.
            checkpoint: file of an interrupted training; removed at the end.

        Raises:
            UserError: the training diverged.
        """
        board, seed = self.board, trial.seed
        attack_options = {"target": board.target, "trigger": board.trigger, "trained": self.network, "seed": seed}
        data = poisoned(self.train.x, self.train.y, trial.poison, **attack_options)  # type: ignore[arg-type]
        x = self._purify(data.x, trial) if trial.cleans_training else data.x
        material = Material(x, data.y, self.held.x, self.held.y, self.network)
        network, _, result = fit_recipe(board.recipe, material, self.train.num_classes, checkpoint, seed=seed)
        checkpoint.unlink(missing_ok=True)
        accuracy = next(row["clean"] for row in result.history if row["step"] == result.step)
        return Victim(network.eval().requires_grad_(False), len(data.index), accuracy)

    def answers(self, network: nn.Module, trial: Trial) -> Answers:
        """Classify the test images as deployed in a trial: a purifier makes its usual number of runs."""
        x, shape = self.test.x, tuple(self.test.x.shape[1:])
        classifier = Classifier(network, num_classes=self.test.num_classes, input_shape=shape)  # type: ignore[arg-type]
        deployed: Defense = classifier
        if trial.cleans_test and trial.purifier:
            p = self.purifiers[trial.purifier.label]
            deployed = Purified(p.purifier, classifier, runs=p.runs, combine=p.combine)
        return Answers(*(_predicted(deployed, a, trial.seed) for a in (x, self.board.trigger.put(x))))

    def _purify(self, x: Tensor, trial: Trial) -> Tensor:
        """Return the training images [N, C, H, W], each purified once."""
        assert trial.purifier
        purifier = self.purifiers[trial.purifier.label].purifier
        streams = Noise.of(stream_seed(trial.seed, "clean training images"), len(x))
        parts = zip(x.split(_ROWS), streams.keys.split(_ROWS), strict=True)
        return torch.cat([purify(purifier, a, Noise(keys)) for a, keys in parts]).clamp(0, 1)


def _require_purifier(defense: Defense, label: str) -> Purified:
    """Return a defense that is a purifier, and refuse others."""
    if not isinstance(defense, Purified):
        raise UserError(f'"{label}" is no purifier and cleans nothing; name one, as adp')
    return defense


@torch.no_grad()
@multiplied_in("float32")
def _predicted(deployed: Defense, x: Tensor, seed: int) -> list[int]:
    """Return the predicted classes of images, int [N]."""
    streams = Noise.of(stream_seed(seed, "test images"), len(x))
    classes: list[int] = deployed.logits(x, streams).argmax(1).tolist()
    return classes
