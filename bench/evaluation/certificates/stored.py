"""Certificates of gradients in a results folder: one per defense that was attacked through exact gradients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.evaluation.certificates.certificate import CertificateRecord, NoGradient
from bench.spec.cell import Cell, digest
from bench.store.folder import write_atomic
from defenses.utils.checksums import is_whole, with_checksum
from defenses.utils.errors import UserError
from defenses.utils.plugins import line_of

if TYPE_CHECKING:
    from torch import Tensor

    from defenses.core.defense import Defense

FILE = "certificates.json"


def read(folder: Path) -> dict[str, CertificateRecord]:
    """Return the certificates of a folder by key; {} where the file is absent or damaged: they are made again."""
    try:
        content = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    stored = content.get("certificates") if isinstance(content, dict) and is_whole(content) else None
    return stored if isinstance(stored, dict) else {}


def add(folder: Path, certificates: Mapping[str, CertificateRecord]) -> None:
    """Store certificates by key, beside those of the folder."""
    if certificates:
        content = with_checksum({"certificates": read(folder) | dict(certificates)})
        write_atomic(folder / FILE, json.dumps(content, indent=1) + "\n")


def missing(
    folder: Path, cells: Iterable[Cell], *, holds: Callable[[Cell, CertificateRecord], bool] = lambda *_: True
) -> dict[str, str]:
    """Return {title: key} of the defenses that cells attack through exact gradients, without a stored certificate.

    Args:
        folder: the results folder.
        cells: the cells.
        holds: False for a cell and a stored certificate that is of an earlier state of its defense.
    """
    stored = read(folder)
    exact = {c.defense.title: c for c in cells if "exact" in c.defense.gradients and _is_exact(c)}
    keys = {title: digest(cell.defense.fingerprint) for title, cell in exact.items()}
    return {t: key for t, key in keys.items() if key not in stored or not holds(exact[t], stored[key])}


def _is_exact(cell: Cell) -> bool:
    """Return True if the attack may differentiate the exact mode."""
    return cell.view.gradient == "exact" and cell.attack.queries_model


def certificate_of(defense: Defense, x: Tensor, title: str) -> CertificateRecord:
    """Measure the certificate of a defense, and return it as it is stored.

    Args:
        defense: the defense.
        x: images [B, C, H, W]; the first four are used.
        title: of the defense, for messages.

    Raises:
        UserError: a `Defense` declares exact gradients and has none, or declares none.
    """
    record = _measured(defense, x[:4], title)
    if note := record.get("note") or _squashed_note(defense, x[:4]):
        record["note"] = note
    return record


def _measured(defense: Defense, x: Tensor, title: str) -> CertificateRecord:
    """Return what `certificate_of` does, for exactly these images, whatever the range of the outputs."""
    from bench.evaluation.certificates.information import information_note
    from bench.evaluation.certificates.measure import certify
    from defenses.core.defense import UserModule
    from defenses.core.noise import Noise

    try:
        certificate = certify(defense, x)
    except NoGradient:
        if not isinstance(defense, UserModule):  # a plain module declares nothing: attacks without gradients may run
            raise no_gradient(title) from None
        return failed("its logits have no gradient")
    except (Exception, SystemExit) as error:  # as of a user-defined module without float64
        return failed(line_of(error)[:200])
    if certificate is None:
        has = ", ".join(defense.gradients)
        raise UserError(f"{title} has no exact gradients to certify; it has: {has}")
    record = certificate.as_dict()
    if note := information_note(defense, x, Noise.of(0, len(x), x.device), label=title):
        record["note"] = note
    return record


def _squashed_note(defense: Defense, x: Tensor) -> str:
    """Return a note on outputs of images [B, C, H, W] that no logits are; "" for logits."""
    import torch

    from bench.evaluation.model_checks import squashed
    from defenses.core.noise import Noise

    with torch.no_grad():
        return squashed(defense.logits(x, Noise.of(0, len(x), x.device)))


def no_gradient(title: str) -> UserError:
    """Return the error of a defense that declares exact gradients and has none."""
    text = 'leave "exact" out of its gradients, or let autograd reach the image (no detach, no no_grad)'
    return UserError(f"{title} declares exact gradients and has none: {text}")


def failed(problem: str) -> CertificateRecord:
    """Return the stored form of a certificate that could not be made."""
    return {"passed": False, "error": problem}
