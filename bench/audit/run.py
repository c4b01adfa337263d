"""Run all checks of an audit, and put down what they found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.attacks.registry import Unsupported
from bench.audit.checks import binarisation, gradients, radius, strength
from bench.audit.findings import Audit, Finding, not_applicable
from bench.audit.pages import as_html, as_markdown
from bench.audit.subject import Subject
from bench.store.audits import FOLDER, NAME, SCHEMA, SOFTMAX, read_audits
from bench.store.folder import Store, write_atomic
from defenses.utils.checksums import with_checksum
from defenses.utils.errors import UserError
from defenses.utils.parameters import canonical

Check = Callable[[Subject], Finding | list[Finding]]

CHECKS: dict[str, Check] = {  # cheap ones first; a name stands for the checks where they cannot be made
    SOFTMAX: gradients.outputs,
    "zero gradients": gradients.zeros,
    "gradients agree between seeds": gradients.agreement,
    "gradient certificate": gradients.certificate,
    "iterative against single step": strength.iterations,
    "accuracy against the radius": radius.radii,
    "white box against others": strength.others,
    "twice the budget": strength.doubling,
    "noise fixed": strength.fixed_noise,
    binarisation.CHECK: binarisation.binarisation,
}
_LONGEST = 200  # characters of an error


def audit(subject: Subject, budget: str) -> Audit:
    """Run all checks on a defense; what an earlier run has finished is taken from its folder.

    Args:
        subject: the defense and its images.
        budget: name of its budget.
    """
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        subject.report(name)
        findings += _finished(subject, name, check)
    about = {
        "key": subject.key,
        "fingerprint": canonical(subject.fingerprint),
        "dataset": subject.dataset,
        "norm": subject.threat.norm,
        "eps": str(subject.threat.eps),
        "images": len(subject.x),
        "budget": budget,
        "seed": subject.seed,
    }
    return Audit(subject.label, about, tuple(findings))


def _finished(subject: Subject, name: str, check: Check) -> list[Finding]:
    """The findings of a check; one that raises has failed, and is tried again by the next run."""

    def make() -> dict[str, Any]:
        made = check(subject)
        return {"findings": [f.as_dict() for f in (made if isinstance(made, list) else [made])]}

    try:
        said = subject.kept(f"check-{name.replace(' ', '-')}", make)
    except Unsupported as reason:
        return [not_applicable(name, str(reason)[:_LONGEST])]
    except UserError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}"
        return [Finding(name, "fail", f"could not be made: {text}")]
    return [Finding.from_dict(f) for f in said["findings"]]


def write(results: Path, made: Audit) -> list[Audit]:
    """Put an audit beside those of other defenses: audit.json, audit.md, audit.html in <results>/audit, each whole.

    An older audit of the same defense at the same threat gives way.

    Args:
        results: the results folder.
        made: what was found.

    Returns:
        All audits of the folder.
    """
    folder = results / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with Store(results).lock("audit", wait=True):
        known = [Audit.from_dict(said) for said in read_audits(results)]
        names = [_name(a) for a in known]
        if _name(made) in names:
            known[names.index(_name(made))] = made
        else:
            known.append(made)
        content = with_checksum({"schema": SCHEMA, "audits": [a.as_dict() for a in known]})
        write_atomic(folder / NAME, json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n")
        write_atomic(folder / "audit.md", as_markdown(known))
        write_atomic(folder / "audit.html", as_html(known))
    return known


def _name(made: Audit) -> tuple[str, ...]:
    about = made.about
    return json.dumps(about["fingerprint"], sort_keys=True), about["dataset"], about["norm"], about["eps"]
