"""Gradient certificates in a results folder: one for every defense that was attacked through exact gradients."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.spec.cell import GIVEN, NULLS, Cell, digest
from bench.store.folder import write_atomic
from defenses.utils.checksums import is_whole, with_checksum
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from defenses.core.defense import Defense

FILE = "certificates.json"


def read(folder: Path) -> dict[str, Any]:
    """Certificates by key; none where the file is absent or damaged, and then they are made again."""
    try:
        content = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}
    found = content.get("certificates") if isinstance(content, dict) and is_whole(content) else None
    return found if isinstance(found, dict) else {}


def add(folder: Path, found: Mapping[str, Any]) -> None:
    """Store certificates beside those that are there."""
    if found:
        write_atomic(
            folder / FILE, json.dumps(with_checksum({"certificates": read(folder) | dict(found)}), indent=1) + "\n"
        )


def missing(folder: Path, cells: Iterable[Cell]) -> dict[str, str]:
    """Title -> key of the defenses that cells attack through exact gradients and that have no certificate here.

    A defense without exact gradients has nothing to certify; its cells say so.
    """
    known = read(folder)
    exact = [c for c in cells if "exact" in c.defense.gradients and _is_exact(c.view.gradient, c.attack.name)]
    keys = {c.defense.title: digest(c.defense.fingerprint) for c in exact}
    return {title: key for title, key in keys.items() if key not in known}


def _is_exact(gradient: str, attack: str) -> bool:
    return gradient == "exact" and attack not in NULLS and not attack.startswith(GIVEN)


def certificate_of(defense: Defense, x: Tensor, title: str) -> dict[str, Any]:
    """The certificate of a defense as it is stored.

    Args:
        defense: the defense.
        x: images [B, C, H, W]; the first four are used.
        title: of the defense, for messages.

    Raises:
        UserError: a `Defense` that declares exact gradients and has none, or one that declares none.
    """
    from bench.evaluation.certificates.certificate import NoGradient
    from bench.evaluation.certificates.information import information_note
    from bench.evaluation.certificates.measure import certify
    from defenses.core.defense import Foreign
    from defenses.core.noise import Noise
    from defenses.utils.plugins import line_of

    try:
        certificate = certify(defense, x[:4])
    except NoGradient:
        if not isinstance(defense, Foreign):  # of a plain module nothing is declared: attacks without gradients may run
            raise no_gradient(title) from None
        return failed("its logits have no gradient")
    except (Exception, SystemExit) as error:  # somebody's module that knows no float64, say
        return failed(line_of(error)[:200])
    if certificate is None:
        has = ", ".join(defense.gradients)
        raise UserError(f"{title} has no exact gradients to certify; it has: {has}")
    few = x[:4]
    note = information_note(defense, few, Noise.of(0, len(few), x.device), label=title)
    return certificate.as_dict() | ({"note": note} if note else {})


def no_gradient(title: str) -> UserError:
    """What is said of a defense that declares exact gradients and has none."""
    text = 'leave "exact" out of its gradients, or let autograd reach the image (no detach, no no_grad)'
    return UserError(f"{title} declares exact gradients and has none: {text}")


def failed(problem: str) -> dict[str, Any]:
    """What is stored where no certificate could be made."""
    return {"passed": False, "error": problem}
