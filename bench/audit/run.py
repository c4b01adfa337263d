"""Run all checks of an audit, and write the findings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from bench.attacks.registry import Unsupported
from bench.audit.checks import binarisation, gradients, radius, strength
from bench.audit.findings import Audit, Finding, not_applicable
from bench.audit.pages import as_html, as_markdown
from bench.audit.subject import Subject
from bench.evaluation.cost import seconds_since
from bench.execution.sources import Sources
from bench.store.audits import FOLDER, SOFTMAX, VERSION, read_audits, write_audits
from bench.store.folder import Store, write_atomic
from defenses.utils.errors import UserError
from defenses.utils.json_values import Json
from defenses.utils.parameters import canonical
from defenses.utils.text import human_time

Check = Callable[[Subject], Finding | list[Finding]]

CHECKS: dict[str, Check] = {  # cheap ones first; the name is that of the finding where a check cannot be done
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
_MAX_ERROR = 200  # characters


def audit(subject: Subject, budget: str) -> Audit:
    """Run all checks on a defense, or read the findings of an earlier run from its folder.

    Args:
        subject: the defense and its images.
        budget: name of the budget.
    """
    findings: list[Finding] = []
    begin = time.perf_counter()
    for number, (name, check) in enumerate(CHECKS.items(), 1):
        after = f", after {human_time(seconds_since(begin))}" if number > 1 else ""
        subject.report(f"[{number}/{len(CHECKS)}] {name}{after}")
        findings += _run_check(subject, name, check)
    subject.report(f"{len(CHECKS)} checks in {human_time(seconds_since(begin))}")
    about = {
        "key": subject.key,
        "version": VERSION,
        "fingerprint": canonical(subject.fingerprint),
        "dataset": subject.dataset,
        "norm": subject.threat.norm,
        "eps": str(subject.threat.eps),
        "images": len(subject.x),
        "budget": budget,
        "seed": subject.seed,
    }
    if entries := Sources().of_defense(subject.code) if subject.code is not None else []:
        about["sources"] = entries
    return Audit(subject.label, about, tuple(findings))


def _run_check(subject: Subject, name: str, check: Check) -> list[Finding]:
    """Return the findings of a check; one that raises has failed, and is tried again by the next run."""

    def measure() -> Json:
        findings = check(subject)
        return {"findings": [f.as_dict() for f in (findings if isinstance(findings, list) else [findings])]}

    try:
        content = subject.cached(f"check-{name.replace(' ', '-')}", measure)
    except Unsupported as reason:
        return [not_applicable(name, str(reason)[:_MAX_ERROR])]
    except UserError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:_MAX_ERROR]}"
        return [Finding(name, "fail", f"could not be made: {text}")]
    return [Finding.from_dict(f) for f in content["findings"]]


def write(results: Path, audit: Audit) -> list[Audit]:
    """Write an audit beside those of other defenses: audit.json, audit.md, audit.html in <results>/audit, each whole.

    An earlier audit of the same defense at the same threat is replaced.

    Args:
        results: the results folder.
        audit: the audit.

    Returns:
        All audits of the folder.
    """
    folder = results / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with Store(results).lock("audit", wait=True):
        audits = [Audit.from_dict(content) for content in read_audits(results)]
        names = [_name(a) for a in audits]
        if _name(audit) in names:
            audits[names.index(_name(audit))] = audit
        else:
            audits.append(audit)
        write_audits(results, [a.as_dict() for a in audits])
        write_pages(results)
    return audits


def write_pages(results: Path) -> None:
    """Write the audits of a results folder as audit.md and audit.html; nothing where it has none."""
    if audits := [Audit.from_dict(content) for content in read_audits(results)]:
        write_atomic(results / FOLDER / "audit.md", as_markdown(audits))
        write_atomic(results / FOLDER / "audit.html", as_html(audits))


def _name(audit: Audit) -> tuple[str, ...]:
    """Return the identity of an audit in its folder."""
    about = audit.about
    return json.dumps(about["fingerprint"], sort_keys=True), about["dataset"], about["norm"], about["eps"]
