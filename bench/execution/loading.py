"""Load, check and certify the defenses of cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.board.board import BoardImages
from bench.board.defense_entry import load_reference
from bench.evaluation.certificates.certificate import CertificateRecord
from bench.evaluation.certificates.stored import certificate_of
from bench.evaluation.devices import device_of
from bench.evaluation.isolation import preserve_global_state
from bench.spec.cell import Cell
from defenses.core.defense import Defense
from defenses.utils.errors import UserError, with_context
from defenses.utils.identity import identity
from defenses.utils.plugin_code import code_hash


def load_defense(cell: Cell, images: BoardImages, weights_root: Path | None) -> Defense:
    """Load the defense of a cell.

    Args:
        cell: the cell.
        images: of its board.
        weights_root: where weights are looked for first.

    Raises:
        UserError: the defense cannot be loaded, or it is not the model of the board's fingerprint.
    """
    reference, roots = cell.defense, {"weights_root": weights_root, "data_root": images.root}
    with preserve_global_state():
        try:
            defense = load_reference(reference, images.dataset, roots)
        except UserError as error:
            raise UserError(f"{images.board}: {with_context(reference.title, error)}") from None
    _check_identity(defense, cell)
    return defense


def _check_identity(defense: Defense, cell: Cell) -> None:
    """Refuse a defense whose weights or state differ from the board's fingerprint."""
    expected = cell.defense.fingerprint
    provenance = vars(defense).get("provenance")
    if provenance is not None and provenance.fingerprint.get("weights") != expected.get("weights"):
        raise UserError(f"the weights of {cell.defense.title} changed while the board was read; repeat the command")
    if expected.get("code") and code_hash(cell.defense.name) not in (expected["code"], ""):
        raise UserError(f"the code of {cell.defense.title} changed while the board was read; repeat the command")
    state = expected.get("state")
    if state is None:
        same = provenance is None or _user_states(provenance.fingerprint) == _user_states(expected)
    else:
        same = identity(defense)[0] == state
    if not same:
        raise UserError(
            f"{cell.defense.title} is another model each time it is built; load its weights, or seed their making"
        )


def _user_states(fingerprint: Mapping[str, Any]) -> list[str | None]:
    """Return the states of the user-defined parts."""
    return [part.get("state") for part in fingerprint.get("around", ())]


def certify_defense(defense: Defense, x: Tensor, title: str) -> CertificateRecord:
    """Return the gradient certificate of a defense; `certificate_of` has the arguments."""
    with preserve_global_state():
        return certificate_of(defense, x.to(device_of(defense)), title)
