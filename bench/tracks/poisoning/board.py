"""Read poisoning boards: TOML files of attacks on training data, and of purifiers that clean it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.board.defense_entry import describe
from bench.board.load import find_board, read_toml
from bench.board.schema import check
from bench.spec.cell import DefenseRef
from bench.tracks.poisoning.attacks import KINDS, Perturbation, Poison, Trigger
from bench.tracks.poisoning.records import CONTROL
from defenses.data.dataset import DatasetInfo, dataset_info, labels_of
from defenses.training.recipe import Recipe, load_recipe, methods
from defenses.utils.checksums import digest
from defenses.utils.errors import UserError, gathered, unknown
from defenses.utils.json_values import Json, JsonView
from defenses.utils.parameters import as_fraction, canonical, decode
from defenses.zoo.cards import card
from defenses.zoo.checkpoints import check_classifier, weights_hash

NO_CLEANING, CLEANING = "none", ("train", "test", "both")
_DIGITS = 32  # of hashes
_VERSION = 1  # counts up when the same board gives other results


@dataclass(frozen=True)
class Trial:
    """A trained model and the way its data are cleaned.

    Args:
        poison: the attack.
        purifier: of the data; None: nothing is cleaned.
        cleaning: "none", "train" (images are purified before training), "test" (at prediction) or "both".
        seed: of attack, training and purification.
        training: identity of the training; trials with the same one share the trained model.
        key: identity of the trial.
    """

    poison: Poison
    purifier: DefenseRef | None
    cleaning: str
    seed: int
    training: str
    key: str

    @property
    def cleans_training(self) -> bool:
        """True if training images are purified."""
        return self.cleaning in ("train", "both")

    @property
    def cleans_test(self) -> bool:
        """True if images are purified before they are classified."""
        return self.cleaning in ("test", "both")

    def title(self) -> str:
        """Return a title for progress and messages."""
        cleaner = f", {self.purifier.label} on {self.cleaning}" if self.purifier else ""
        ratio = f" {float(self.poison.ratio):g}" if self.poison.kind != CONTROL else ""
        return f"{self.poison.kind}{ratio}{cleaner}, seed {self.seed}"


@dataclass(frozen=True)
class PoisonBoard:
    """A poisoning board.

    Args:
        name: of the results folder.
        title: of the table.
        dataset: name of a data set with train, validation and test images.
        recipe: of the victim's training.
        poisons: the attacks; the control comes first.
        purifiers: of training or test images.
        seeds: of the trainings.
        target: class that the trigger shall produce.
        trigger: the trigger.
        sources: SHA-256 of the surrogates' weights, by name.
        threads: of torch.
    """

    name: str
    title: str
    dataset: str
    recipe: Recipe
    poisons: tuple[Poison, ...]
    purifiers: tuple[DefenseRef, ...]
    seeds: tuple[int, ...]
    target: int
    trigger: Trigger
    sources: Mapping[str, str]
    threads: int = 1

    def trials(self, info: DatasetInfo) -> list[Trial]:
        """Return all trials, in table order.

        Args:
            info: of the data set.
        """
        ways: list[tuple[DefenseRef | None, str]] = [(None, NO_CLEANING)]
        ways += [(purifier, cleaning) for purifier in self.purifiers for cleaning in CLEANING]
        return [
            self._trial(info, poison, purifier, cleaning, seed)
            for poison in self.poisons
            for purifier, cleaning in ways
            for seed in self.seeds
        ]

    def _trial(self, info: DatasetInfo, poison: Poison, purifier: DefenseRef | None, cleaning: str, seed: int) -> Trial:
        """Return a trial with its identity."""
        cleaner = None if purifier is None else purifier.fingerprint
        training_facts = {
            "version": _VERSION,
            "data": [info.name, info.revision],
            "recipe": self.recipe.fingerprint(seed),
            "poison": {**asdict(poison), "ratio": str(poison.ratio)},
            "source": self.sources[poison.perturbation.against] if poison.perturbation else None,
            "target": self.target,
            "trigger": asdict(self.trigger),
            "cleaner": cleaner if cleaning in ("train", "both") else None,
        }
        training = digest(training_facts)[:_DIGITS]
        key = digest([training, cleaner, cleaning])[:_DIGITS]
        return Trial(poison, purifier, cleaning, seed, training, key)


def load_poison_board(
    path: str | Path, *, weights_root: str | Path | None = None, data_root: str | Path | None = None
) -> PoisonBoard:
    """Read a poisoning board.

    Args:
        path: a TOML file, or the name of a built-in board ("digits-poisoning").
        weights_root: where weights are looked for first.
        data_root: where data sets lie.

    Raises:
        UserError: no such file, not TOML, unknown or missing key, unknown name, a value of the wrong kind or out of
            range, a ratio that poisons nothing.
    """
    file = find_board(path)
    raw = read_toml(file)
    try:
        board = _read_board(raw, file.stem, {"weights_root": weights_root, "data_root": data_root})
        _check_data(board, data_root)
    except UserError as error:
        raise error.within(str(file)) from None
    return board


def _read_board(raw: Json, stem: str, roots: Json) -> PoisonBoard:
    """Return the board of a TOML file.

    Args:
        raw: its content.
        stem: name of the file, the default of name and title.
        roots: folders of weights and of data sets.
    """
    if "threat" in raw or "preset" in raw:
        raise UserError("it is about attacks on images; run it with purebench run")
    check("poisoning", raw)
    dataset = raw["dataset"]
    parts: list[Callable[[], Any]] = [
        lambda: _read_recipe(raw["training"], dataset),
        lambda: _read_purifiers(raw.get("purifier", []), dataset, roots),
        lambda: _read_poisons(raw["attack"]),
    ]
    recipe, purifiers, poisons = gathered(lambda part: part(), parts)
    surrogates = sorted({p.perturbation.against for p in poisons if p.perturbation})
    for name in surrogates:
        check_classifier(name, dataset, roots["weights_root"], data_root=roots["data_root"])
    return PoisonBoard(
        name=raw.get("name", stem),
        title=raw.get("title", stem),
        dataset=dataset,
        recipe=recipe,
        poisons=poisons,
        purifiers=purifiers,
        seeds=tuple(raw["seeds"]),
        target=raw.get("target", 0),
        trigger=Trigger(**decode(canonical(raw.get("trigger", {})))),
        sources={name: weights_hash(name, dataset, roots["weights_root"]) for name in surrogates},
        threads=raw.get("threads", 1),
    )


def _read_recipe(training: JsonView, dataset: str) -> Recipe:
    """Return the recipe of [training]."""
    method = training["recipe"]
    if method in methods() and card(method).kind != "classifier":
        raise UserError(f'recipe "{method}" trains a part of a {card(method).kind}; name a classifier\'s')
    return load_recipe(method, dataset, training.get("set"))


def _read_purifiers(entries: list[Any], dataset: str, roots: Json) -> tuple[DefenseRef, ...]:
    """Return the purifiers of all [[purifier]], which have different labels."""
    purifiers = tuple(gathered(lambda entry: describe(entry, dataset, **roots), entries))
    labels = [p.label for p in purifiers]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f'the purifier "{label}" occurs twice; give each another label')
    return purifiers


def _read_poisons(entries: list[Any]) -> tuple[Poison, ...]:
    """Return the control and the poisons of all [[attack]], which differ in kind or ratio."""
    poisons = (Poison(), *itertools.chain(*gathered(lambda entry: list(_read_attack(entry)), entries)))
    pairs = [(p.kind, p.ratio) for p in poisons]
    for kind, ratio in pairs:
        if pairs.count((kind, ratio)) > 1:
            raise UserError(f"{kind} with ratio {float(ratio):g} occurs twice; leave one out")
    return poisons


def _read_attack(entry: JsonView) -> Iterator[Poison]:
    """Yield the poisons of an [[attack]], one for each ratio."""
    if entry["name"] not in KINDS:
        raise unknown("attack on training data", entry["name"], KINDS)
    settings = {key: value for key, value in entry.items() if key not in ("name", "ratios")}
    if settings and entry["name"] != "clean-label":
        raise UserError(f'"{entry["name"]}" perturbs nothing and takes no "{next(iter(settings))}"; leave it out')
    perturbation = Perturbation(**decode(canonical(settings))) if entry["name"] == "clean-label" else None
    for ratio in entry["ratios"]:
        yield Poison(entry["name"], as_fraction(ratio), perturbation)


def _check_data(board: PoisonBoard, data_root: str | Path | None) -> None:
    """Refuse a board that does not fit its data set.

    Raises:
        UserError: a missing split, an unknown class, a trigger larger than the images, a ratio that poisons nothing.
    """
    info = dataset_info(board.dataset, root=data_root)
    for split in ("train", "validation", "test"):
        if split not in info.splits:
            raise UserError(f"{board.dataset} has no {split} images, which a poisoning board needs")
    if not 0 <= board.target < info.num_classes:
        raise UserError(f"target is {board.target}; {board.dataset} has classes 0 to {info.num_classes - 1}")
    if board.trigger.size > min(info.shape[1:]):
        raise UserError(f"the trigger is {board.trigger.size} pixels wide, and images are {info.shape[1:]}")
    y = torch.tensor(labels_of(board.dataset, "train", root=data_root))
    for poison in board.poisons:
        poison.count(y, board.target)
