"""The binarisation test of an evaluation (Zimmermann, Brendel, Tramer & Carlini, NeurIPS 2022).

For one image at a time the last layer of the defense is replaced by a linear readout of its features that separates
random points inside the ball from a point planted on its boundary. So an adversarial example is known to exist, and an
attack that does not find one would not find one on the defense either. Random search with as many questions must not
find it, or the test is too easy to say anything.

PGD is tried first, and APGD where it misses. The test fails where the upper end of Clopper and Pearson's 95% interval
of the share that they find is below what is asked: of 20 images, one missed by chance is a share of 5%.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.audit.checks.features import Features
from bench.audit.checks.planted_points import boundary, inner
from bench.audit.findings import Finding, Plot, not_applicable, status_of
from bench.audit.subject import AttackRun, Subject, attacked
from bench.spec.view import ViewSpec
from bench.stats.proportions import clopper_pearson
from defenses.core.defense import Defense
from defenses.core.noise import Noise

CHECK = "binarisation"
_FOUND = 0.95  # share of images on which the attacks must succeed, as far as so few images tell
_RANDOM = 0.5  # share of images on which random search may
_COPIES = 4  # draws of an inner point of a randomised defense
_RIDGE = 1.0  # of the covariance, times its mean eigenvalue: units that are silent inside would get all the weight
_OUT = 0.9  # where the decision lies, between the mean inner point (0) and the planted one (1)
_JUDGED = 4  # times the verdict's draws, for a mean score
_STREAMS = {"inner": 1, "planted": 2, "random": 3}


class Grafted(Defense):
    """A defense whose last layer is a readout of its own for every image: logits (-s/2, s/2) [B, 2].

    Args:
        features: of the defense.
        weight: readouts [n, D].
        threshold: their scores at the decision, [n].

    Rows are the n images in order, or so many copies of each side by side.
    """

    def __init__(self, features: Features, weight: Tensor, threshold: Tensor):
        super().__init__()
        defense = features.defense
        self.defense, self.features = defense, features
        self.weight, self.threshold = weight, threshold
        self.stochastic, self.gradients, self.num_classes = defense.stochastic, defense.gradients, 2
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:  # noqa: ARG002
        """See `Defense.logits`; one run."""
        score = self.score(self.features(x, noise, gradient=gradient))
        return torch.stack((-score / 2, score / 2), 1)

    def score(self, features: Tensor) -> Tensor:
        """What the readouts say of features [B, D]: positive where the planted class is, [B]."""
        copies = len(features) // len(self.weight)
        weight, threshold = (t.repeat_interleave(copies, 0) for t in (self.weight, self.threshold))
        return (features * weight).sum(1) - threshold


@dataclass(frozen=True)
class Test:
    """The defense with readouts, and for which of its images the test holds (bool [n])."""

    grafted: Grafted
    x: Tensor
    valid: Tensor

    def rows(self, at: slice) -> Test:
        """The same of some of its images."""
        grafted = Grafted(self.grafted.features, self.grafted.weight[at], self.grafted.threshold[at])
        return Test(grafted, self.x[at], self.valid[at])


def binarisation(subject: Subject) -> Finding:
    """PGD and APGD find the planted class on nearly all images, and random search does not."""
    x = subject.x[: subject.budget.planted]
    test = _test(subject, x)
    n = int(test.valid.sum())
    if n < len(x) / 2:
        return not_applicable(
            CHECK, f"the features separate the planted point from the inside on only {n} of {len(x)} images"
        )
    attack = _attack(subject, test)
    search = _random_search(subject, test)
    share, chance = (float(t[test.valid].double().mean()) for t in (attack, search))
    low, high = (float(v) for v in clopper_pearson(int(attack[test.valid].sum()), n))
    numbers = {"attack": share, "low": low, "high": high, "random search": chance, "images": float(n), "limit": _FOUND}
    said = (
        f"PGD and APGD find the planted class on {share:.0%} of {n} images [{low:.1%}, {high:.1%}], "
        f"random search on {chance:.0%}"
    )
    plot = Plot("bar", "", "found", {"found": (("PGD and APGD", "random search"), (share, chance))}, _FOUND)
    if chance > _RANDOM:
        return Finding(CHECK, "not applicable", f"{said}: too easy to tell anything", numbers, plot=plot)
    missed = (test.valid & ~attack).cpu().numpy()
    images = tuple(int(i) for i in subject.indices.numpy()[: len(x)][missed])
    return Finding(
        CHECK, status_of(high >= _FOUND), f"{said}; {_FOUND:.0%} is asked of the upper end", numbers, images, plot
    )


def _test(subject: Subject, x: Tensor) -> Test:
    """Readouts by regularised linear discriminants, with the decision most of the way out to the planted point."""
    features, judged = Features(subject.defense, x), _JUDGED * subject.budget.draws
    planted = boundary(x, subject.threat, _noise(subject, len(x), "planted"))

    def mean(points: Tensor, purpose: str) -> Tensor:
        return features.mean(points, judged, subject.number(purpose))

    inside = _inside(subject, features, x)
    pairs = zip(inside, mean(planted, "readout"), strict=True)
    weight = torch.stack([_discriminant(points, point) for points, point in pairs])
    scores = torch.einsum("nid,nd->ni", inside, weight)
    # Under other draws than those that the readout was made for.
    top = (mean(planted, "threshold") * weight).sum(1)
    threshold = scores.mean(1) + _OUT * (top - scores.mean(1))
    # Logits as large as those of the defense: what saturates there has to saturate here.
    scale = _gap(subject, x) / (scores - threshold[:, None]).abs().mean(1).clamp_min(1e-12)
    grafted = Grafted(features, weight * scale[:, None], threshold * scale)
    holds = (grafted.score(mean(planted, "again")) > 0) & (grafted.score(mean(x, "clean")) < 0)
    return Test(grafted, x, holds)


def _inside(subject: Subject, features: Features, x: Tensor) -> Tensor:
    """Features of inner points [n, points, D], image by image: all at once they would fill memory."""
    count, noise = subject.budget.inner, _noise(subject, len(x), "inner")
    made = []
    for i in range(len(x)):
        points = inner(
            x[i : i + 1].expand(count, -1, -1, -1), subject.threat, noise.rows(slice(i, i + 1)).copies(count)
        )
        made.append(features.mean(points, _COPIES, subject.number("inner", i)))
    return torch.stack(made)


def _discriminant(points: Tensor, planted: Tensor) -> Tensor:
    """The direction [D] that tells one point [D] from a cloud [N, D] best (Fisher 1936, with a ridge)."""
    cloud = points.double()
    centred = cloud - cloud.mean(0)
    covariance = centred.T @ centred / len(cloud)
    ridge = _RIDGE * covariance.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(len(covariance), dtype=cloud.dtype, device=cloud.device)
    direction = torch.linalg.solve(covariance + ridge * eye, planted.double() - cloud.mean(0))
    unit: Tensor = direction / direction.norm().clamp_min(1e-30)
    return unit.to(points)


def _gap(subject: Subject, x: Tensor) -> Tensor:
    """The mean gap between the top two logits of the defense."""
    with torch.no_grad():
        top = subject.defense.logits(x, Noise.of(subject.seed, len(x), x.device)).topk(2).values
    gap: Tensor = (top[:, 0] - top[:, 1]).mean().clamp_min(1e-6)
    return gap


def _attack(subject: Subject, test: Test) -> Tensor:
    """Where PGD or APGD reaches the planted class, bool [n].

    PGD takes all images together; its steps of a fixed size miss some planted points of honest defenses. What it misses
    is tried by APGD image by image: that puts its rows together as it likes, and a readout belongs to one image.
    """
    everything = slice(0, len(test.x))
    reached = torch.stack([_shot(subject, test, subject.pgd(mode), everything) for mode in subject.modes]).any(0)
    for i in torch.nonzero(test.valid & ~reached).flatten().tolist():
        reached[i] = any(_shot(subject, test, _apgd(subject, mode), slice(i, i + 1)).item() for mode in subject.modes)
    return reached


def _apgd(subject: Subject, mode: str) -> AttackRun:
    """APGD; on a deterministic defense AutoAttack's, on the cross-entropy.

    Not on a margin, as `bench:apgd` has it for one copy: where softmax saturates, the white box has no gradient, and a
    margin would hide that.
    """
    if subject.defense.stochastic:
        return subject.iterative(mode)
    return AttackRun("autoattack:apgd-ce", {"n_iter": subject.budget.steps}, mode, 1, str(subject.threat.eps))


def _shot(subject: Subject, test: Test, shot: AttackRun, rows: slice) -> Tensor:
    """Where one attack on some of the images reaches the planted class, bool."""
    test = test.rows(rows)
    spec = ViewSpec(shot.gradient, shot.eot, 1) if subject.defense.stochastic else ViewSpec(shot.gradient)
    inside = torch.zeros(len(test.x), dtype=torch.int64, device=test.x.device)
    x_adv = attacked(
        test.grafted, spec, shot, test.x, inside, norm=subject.threat.norm, seed=subject.number(CHECK, shot.gradient),
        num_classes=2, indices=subject.indices[rows],
    )  # fmt: skip
    return _reached(subject, test, x_adv)


def _random_search(subject: Subject, test: Test) -> Tensor:
    """Where the best of as many random points of the boundary as the attack has steps reaches the class, bool [n]."""
    x, noise = test.x, _noise(subject, len(test.x), "random")
    best, highest = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    for i in range(subject.budget.steps):
        point = boundary(x, subject.threat, noise.child(i))
        score = test.grafted.score(test.grafted.features.mean(point, subject.eot, subject.number("search", i)))
        better = score > highest
        best, highest = torch.where(better.view(-1, 1, 1, 1), point, best), torch.maximum(score, highest)
    return _reached(subject, test, best)


def _reached(subject: Subject, test: Test, x_adv: Tensor) -> Tensor:
    """Whether the mean score under fresh draws is positive, bool [n]."""
    draws = _JUDGED * subject.budget.draws
    return test.grafted.score(test.grafted.features.mean(x_adv, draws, subject.number("judged"))) > 0


def _noise(subject: Subject, n: int, purpose: str) -> Noise:
    return Noise.of(subject.number("points"), subject.indices[:n], subject.x.device).child(_STREAMS[purpose])
