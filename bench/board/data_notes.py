"""Notes on images that a model may have seen, and on weights for other data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from defenses.utils.errors import UserError
from defenses.zoo.cards import list_models
from defenses.zoo.registry import fingerprint

if TYPE_CHECKING:
    from bench.spec.cell import DefenseRef

_LABEL = 200  # characters of a label in a note
_SHIPPED = "defenses.zoo."  # of classes that are named as a user's


def data_notes(
    defenses: Iterable[DefenseRef], dataset: str, split: str, *, in_memory: Iterable[str]
) -> tuple[str, ...]:
    """Return the notes on what the networks of some defenses may have been trained on.

    Args:
        defenses: the defenses.
        dataset: name or path of the data set.
        split: split on which they are judged.
        in_memory: titles of the defenses that Python code gave, whatever the data set they were loaded for.
    """
    notes, titles = [], set(in_memory)
    user = next((d.label[:_LABEL] for d in defenses if _is_users(d)), None)
    if user is not None and split != "train" and _is_digits(dataset):
        notes.append(
            f"the {split} split of digits is a permutation of scikit-learn's images: if {user} was trained on images "
            "of load_digits() in any other split, it has seen some of them, and its accuracy is too high; train it on "
            'defenses.data.load_dataset("digits", split="train")'
        )
    for defense in defenses:
        if defense.title in titles and _lacks_weights(defense, dataset):
            notes.append(
                f"{defense.label[:_LABEL]} has weights for other data than {dataset}, on which it was not trained"
            )
    return tuple(notes)


def _is_digits(dataset: str) -> bool:
    return dataset == "digits" or dataset.startswith("corrupted:digits/")


def _is_users(defense: DefenseRef) -> bool:
    """Return True if the classifier of a defense is a user's, so that its training images are unknown."""
    identified: Any = defense.fingerprint
    if "class" in identified and "classifier" not in identified["parameters"]:
        return not str(identified["class"]).startswith(_SHIPPED)
    return any(part.get("role") == "classifier" and "state" in part for part in identified.get("around", ()))


def _lacks_weights(defense: DefenseRef, dataset: str) -> bool:
    """Return True for a registered defense with weights that has none for a data set."""
    identified: Any = defense.fingerprint
    if defense.name not in list_models() or not identified.get("weights"):
        return False
    try:
        fingerprint(defense.name, dataset, defense.params, training_seed=defense.training_seed)
    except UserError:
        return True
    return False
