"""Checks of the white box's strength: comparisons of attacks on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.audit.findings import Finding, Plot, not_applicable, status_of
from bench.audit.subject import AttackRun, ImageAccuracies, Subject, worst
from bench.stats.paired import Paired, paired_difference
from defenses.core.defense import UserModule

TOLERANCE = 0.01  # share of images that another attack may win on an honest defense
_SINGLE = {"Linf": "LinfFastGradientAttack", "L2": "L2FastGradientAttack", "L1": "L1FastGradientAttack"}


def stronger_by(weak: ImageAccuracies, strong: ImageAccuracies) -> Paired:
    """Return the difference in accuracy of two attacks on the same images, with its 95% interval.

    Args:
        weak: outcome of one attack.
        strong: outcome of the other; the difference is positive where it is the stronger one.
    """
    return paired_difference(weak.shares, strong.shares)


def clearly(paired: Paired) -> bool:
    """Return True if the lower end of a difference exceeds the tolerance."""
    return paired.low > TOLERANCE


def iterations(subject: Subject) -> Finding:
    """Check that an iterative attack is at least as strong as a single step."""
    check = "iterative against single step"
    attacks = [
        AttackRun(f"foolbox:{_SINGLE[subject.threat.norm]}", {}, mode, subject.eot, str(subject.threat.eps))
        for mode in subject.modes
    ]
    single, white = worst([subject.run(a) for a in attacks]), subject.strongest()
    paired = stronger_by(white, single)
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {white.accuracy:.1%} after {subject.budget.steps} steps, {single.accuracy:.1%} after one",
        {"iterative": white.accuracy, "single step": single.accuracy} | _interval(paired),
        subject.images(white.shares > single.shares) if clearly(paired) else (),
        bars({"single step": single, f"{subject.budget.steps} steps": white}),
    )


def doubling(subject: Subject) -> list[Finding]:
    """Check that twice the iterations, restarts or copies change little; else the budget is too small."""
    base, steps = subject.white(), 2 * subject.budget.steps
    second = worst([base, subject.white(restart=1)])
    findings = [
        _doubled("twice the iterations", base, subject.white(steps=steps)),
        _doubled("twice the restarts", base, second),
    ]
    if subject.defense.stochastic:
        findings.append(_doubled("twice the EOT copies", base, subject.white(eot=2 * subject.eot)))
    else:
        findings.append(not_applicable("twice the EOT copies", "the defense is deterministic"))
    return findings


def others(subject: Subject) -> list[Finding]:
    """Check that the white box is not weaker than attacks with less knowledge, on the same images."""
    white = subject.strongest()
    findings = [_against(subject, "transfer", white, *_transfer(subject))]
    findings.append(_against(subject, "Square", white, subject.run(_square(subject))))
    spsa = _spsa(subject)
    reason = "torchattacks has SPSA for Linf alone"
    findings.append(_against(subject, "SPSA", white, None if spsa is None else subject.run(spsa), reason))
    uniform = subject.run(AttackRun("uniform", {}, subject.modes[0], 1, str(subject.threat.eps)))
    return [*findings, _against(subject, "random noise", white, uniform)]


def _square(subject: Subject) -> AttackRun:
    """Return Square; on a randomised defense the one that accepts a change on the mean of paired draws."""
    mode, queries = subject.modes[0], subject.budget.queries
    if subject.defense.stochastic:
        return subject.adaptive("square", {"queries": queries}, mode, (subject.eot, subject.eot))
    return AttackRun("autoattack:square", {"n_queries": queries}, mode, 1, str(subject.threat.eps))


def _spsa(subject: Subject) -> AttackRun | None:
    """Return SPSA; on a randomised defense with pairs that share a draw. None: there is none for the norm."""
    mode, (count, samples) = subject.modes[0], subject.budget.spsa
    if subject.defense.stochastic:
        return subject.adaptive("spsa", {"steps": count}, mode, (samples, 4 * samples))
    if subject.threat.norm != "Linf":
        return None
    eps = subject.threat.eps
    params = {"nb_iter": count, "nb_sample": samples, "max_batch_size": samples, "lr": float(eps) / 5}
    return AttackRun("torchattacks:SPSA", params, mode, 1, str(eps))


def fixed_noise(subject: Subject) -> Finding:
    """Check that an attack with known noise is at least as strong as one without."""
    check = "noise fixed"
    if not subject.defense.stochastic:
        return not_applicable(check, "the defense is deterministic")
    if isinstance(subject.defense, UserModule):
        return not_applicable(
            check, "the module draws its noise for a whole batch, so it cannot be fixed image by image"
        )
    transfer, _ = _transfer(subject)
    free = worst([subject.strongest(), *([] if transfer is None else [transfer])])
    known = worst([subject.run(subject.pgd(mode, eot=1, against="fixed")) for mode in subject.modes])
    paired = stronger_by(known, free)
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {known.accuracy:.1%} when the attacker knows the noise, {free.accuracy:.1%} when it does not",
        {"known": known.accuracy, "unknown": free.accuracy} | _interval(paired),
        subject.images(known.shares > free.shares) if clearly(paired) else (),
        bars({"noise unknown": free, "noise known": known}),
    )


def bars(outcomes: Mapping[str, ImageAccuracies], limit: float | None = None) -> Plot:
    """Return a plot of the accuracy under several attacks."""
    values = tuple(o.accuracy for o in outcomes.values())
    return Plot("bar", "", "accuracy", {"accuracy": (tuple(outcomes), values)}, limit)


def _transfer(subject: Subject) -> tuple[ImageAccuracies | None, str]:
    """Return (the stronger transfer, from the bare classifier or from the surrogate; why there is none)."""
    attacks = [subject.pgd("blind", eot=1)] if "blind" in subject.defense.gradients else []
    attacks += [subject.pgd("exact", eot=1, against="other")] if subject.other is not None else []
    if not attacks:
        return None, "there is no bare classifier and no other network for this data set"
    return worst([subject.run(a) for a in attacks]), ""


def _doubled(check: str, base: ImageAccuracies, more: ImageAccuracies) -> Finding:
    """Check that a doubled budget gives no clearly stronger attack."""
    paired = stronger_by(base, more)
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {base.accuracy:.1%}, with {check} {more.accuracy:.1%} "
        f"[difference {paired.low:+.1%}, {paired.high:+.1%}]",
        {"base": base.accuracy, "doubled": more.accuracy} | _interval(paired),
        plot=bars({"as it is": base, check: more}),
    )


def _against(
    subject: Subject, name: str, white: ImageAccuracies, other: ImageAccuracies | None, reason: str = ""
) -> Finding:
    """Check that another attack is not clearly stronger than the white box.

    Args:
        subject: the defense.
        name: of the other attack.
        white: outcome of the white box.
        other: outcome of the other attack; None: it does not apply.
        reason: why it does not apply.
    """
    check = f"white box against {name}"
    if other is None:
        return not_applicable(check, reason)
    paired = stronger_by(white, other)
    lost = white.shares - other.shares > 0.5  # the other attack is stronger in most draws
    count = int(np.count_nonzero(lost))
    fallen = f"; {count} image{'s fall' if count > 1 else ' falls'} to {name} alone" if count else ""
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {white.accuracy:.1%} under the white box, {other.accuracy:.1%} under {name}{fallen}",
        {"white box": white.accuracy, name: other.accuracy} | _interval(paired),
        subject.images(lost),
        bars({"white box": white, name: other}),
    )


def _interval(paired: Paired) -> dict[str, float]:
    """Return a difference, its interval and the tolerance, for the numbers of a finding."""
    return {"difference": paired.difference, "low": paired.low, "high": paired.high, "tolerance": TOLERANCE}
