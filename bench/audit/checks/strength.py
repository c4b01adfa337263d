"""Is the white box as strong as it should be? Comparisons of attacks on the same images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.audit.findings import Finding, Plot, not_applicable, status_of
from bench.audit.subject import AttackRun, Outcome, Subject, worst
from bench.stats.paired import Paired, paired_difference
from defenses.core.defense import Foreign

TOLERANCE = 0.01  # of the images; an honest robust network loses the odd one to another attack
_SINGLE = {"Linf": "LinfFastGradientAttack", "L2": "L2FastGradientAttack", "L1": "L1FastGradientAttack"}


def stronger_by(weak: Outcome, strong: Outcome, seed: int) -> Paired:
    """How much more one attack takes than another, on the same images, with its 95% interval."""
    return paired_difference(weak.shares, strong.shares, seed=seed)


def clearly(paired: Paired) -> bool:
    """Whether a difference exceeds the tolerance by more than its interval."""
    return paired.low > TOLERANCE


def iterations(subject: Subject) -> Finding:
    """An iterative attack is at least as strong as a single step."""
    check = "iterative against single step"
    shots = [
        AttackRun(f"foolbox:{_SINGLE[subject.threat.norm]}", {}, mode, subject.eot, str(subject.threat.eps))
        for mode in subject.modes
    ]
    single, white = worst([subject.run(s) for s in shots]), subject.strongest()
    paired = stronger_by(white, single, subject.seed)
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {white.accuracy:.1%} after {subject.budget.steps} steps, {single.accuracy:.1%} after one",
        {"iterative": white.accuracy, "single step": single.accuracy} | _interval(paired),
        subject.images(white.shares > single.shares) if clearly(paired) else (),
        bars({"single step": single, f"{subject.budget.steps} steps": white}),
    )


def doubling(subject: Subject) -> list[Finding]:
    """Twice the iterations, restarts or copies change little; if they do not, the budget is too small."""
    base, steps = subject.white(), 2 * subject.budget.steps
    second = worst([base, subject.white(restart=1)])
    findings = [
        _doubled(subject, "twice the iterations", base, subject.white(steps=steps)),
        _doubled(subject, "twice the restarts", base, second),
    ]
    if subject.defense.stochastic:
        findings.append(_doubled(subject, "twice the EOT copies", base, subject.white(eot=2 * subject.eot)))
    else:
        findings.append(not_applicable("twice the EOT copies", "the defense is deterministic"))
    return findings


def others(subject: Subject) -> list[Finding]:
    """The white box is not weaker than attacks that know less, on the same images."""
    white = subject.strongest()
    findings = [_against(subject, "transfer", white, *_transfer(subject))]
    findings.append(_against(subject, "Square", white, subject.run(_square(subject))))
    spsa = _spsa(subject)
    why = "torchattacks has SPSA for Linf alone"
    findings.append(_against(subject, "SPSA", white, None if spsa is None else subject.run(spsa), why))
    uniform = subject.run(AttackRun("uniform", {}, subject.modes[0], 1, str(subject.threat.eps)))
    return [*findings, _against(subject, "random noise", white, uniform)]


def _square(subject: Subject) -> AttackRun:
    """Random search; on a randomised defense one that accepts a change on the mean of paired draws."""
    mode, queries = subject.modes[0], subject.budget.queries
    if subject.defense.stochastic:
        return subject.own("square", {"queries": queries}, mode, (subject.eot, subject.eot))
    return AttackRun("autoattack:square", {"n_queries": queries}, mode, 1, str(subject.threat.eps))


def _spsa(subject: Subject) -> AttackRun | None:
    """Estimated gradients; on a randomised defense from pairs that meet the same draw."""
    mode, (count, samples) = subject.modes[0], subject.budget.spsa
    if subject.defense.stochastic:
        return subject.own("spsa", {"steps": count}, mode, (samples, 4 * samples))
    if subject.threat.norm != "Linf":
        return None
    eps = subject.threat.eps
    params = {"nb_iter": count, "nb_sample": samples, "max_batch_size": samples, "lr": float(eps) / 5}
    return AttackRun("torchattacks:SPSA", params, mode, 1, str(eps))


def fixed_noise(subject: Subject) -> Finding:
    """An attacker who knows the noise does at least as well as one who does not."""
    check = "noise fixed"
    if not subject.defense.stochastic:
        return not_applicable(check, "the defense is deterministic")
    if isinstance(subject.defense, Foreign):
        return not_applicable(
            check, "the module draws its noise for a whole batch, so it cannot be fixed image by image"
        )
    transfer, _ = _transfer(subject)
    free = worst([subject.strongest(), *([] if transfer is None else [transfer])])
    known = worst([subject.run(subject.pgd(mode, eot=1, against="fixed")) for mode in subject.modes])
    paired = stronger_by(known, free, subject.seed)
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {known.accuracy:.1%} when the attacker knows the noise, {free.accuracy:.1%} when it does not",
        {"known": known.accuracy, "unknown": free.accuracy} | _interval(paired),
        subject.images(known.shares > free.shares) if clearly(paired) else (),
        bars({"noise unknown": free, "noise known": known}),
    )


def bars(outcomes: Mapping[str, Outcome], limit: float | None = None) -> Plot:
    """Accuracy under several attacks."""
    values = tuple(o.accuracy for o in outcomes.values())
    return Plot("bar", "", "accuracy", {"accuracy": (tuple(outcomes), values)}, limit)


def _transfer(subject: Subject) -> tuple[Outcome | None, str]:
    """The best of what there is: the bare classifier behind the defense, and an undefended network."""
    shots = [subject.pgd("blind", eot=1)] if "blind" in subject.defense.gradients else []
    shots += [subject.pgd("exact", eot=1, against="other")] if subject.other is not None else []
    if not shots:
        return None, "there is no bare classifier and no other network for this data set"
    return worst([subject.run(s) for s in shots]), ""


def _doubled(subject: Subject, check: str, base: Outcome, more: Outcome) -> Finding:
    paired = stronger_by(base, more, subject.seed)
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {base.accuracy:.1%}, with {check} {more.accuracy:.1%} "
        f"[difference {paired.low:+.1%}, {paired.high:+.1%}]",
        {"base": base.accuracy, "doubled": more.accuracy} | _interval(paired),
        plot=bars({"as it is": base, check: more}),
    )


def _against(subject: Subject, name: str, white: Outcome, other: Outcome | None, why: str = "") -> Finding:
    check = f"white box against {name}"
    if other is None:
        return not_applicable(check, why)
    paired = stronger_by(white, other, subject.seed)
    lost = white.shares - other.shares > 0.5  # on these images the other attack is the better one by most draws
    count = int(np.count_nonzero(lost))
    named = f"; {count} image{'s fall' if count > 1 else ' falls'} to {name} alone" if count else ""
    return Finding(
        check,
        status_of(not clearly(paired)),
        f"accuracy {white.accuracy:.1%} under the white box, {other.accuracy:.1%} under {name}{named}",
        {"white box": white.accuracy, name: other.accuracy} | _interval(paired),
        subject.images(lost),
        bars({"white box": white, name: other}),
    )


def _interval(paired: Paired) -> dict[str, float]:
    return {"difference": paired.difference, "low": paired.low, "high": paired.high, "tolerance": TOLERANCE}
