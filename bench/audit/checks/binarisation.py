"""The binarisation test of an evaluation (Zimmermann, Brendel, Tramer & Carlini, NeurIPS 2022).

For each image the last layer of the defense is replaced by a linear readout of its features that separates random
points inside the ball from a point planted on its boundary. An adversarial example exists then, and an attack that
misses it would miss one on the defense too. Random search with as many queries must miss it, or the test is too easy.

PGD is tried first, and APGD where it misses. The test fails if the upper end of Clopper and Pearson's 95% interval of
the share that they find is below a limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.audit.checks.features import Features
from bench.audit.checks.planted_points import boundary, inner
from bench.audit.findings import Finding, Plot, not_applicable, status_of
from bench.audit.subject import AttackRun, Subject, attacked
from bench.stats.proportions import clopper_pearson
from defenses.core.defense import Defense
from defenses.core.noise import Noise

CHECK = "binarisation"
_FOUND = 0.95  # least share of images on which the attacks succeed
_RANDOM = 0.5  # largest share of images on which random search succeeds
_COPIES = 4  # draws of an inner point of a randomised defense
_RIDGE = 1.0  # multiple of the mean eigenvalue; without it, units that are constant inside get all the weight
_OUT = 0.9  # position of the decision, between the mean inner point (0) and the planted one (1)
_JUDGED = 4  # draws of a mean score, as a multiple of those of a verdict
_STREAMS = {"inner": 1, "planted": 2, "random": 3}


class ReadoutDefense(Defense):
    """A defense with another last layer for every image, a readout: logits (-s/2, s/2) [B, 2].

    Args:
        features: of the defense.
        weight: readouts [n, D].
        threshold: scores of the readouts at the decision, [n].

    Rows are the n images in order, or the same number of copies of each, side by side.
    """

    def __init__(self, features: Features, weight: Tensor, threshold: Tensor):
        super().__init__()
        defense = features.defense
        self.defense, self.features = defense, features
        self.weight, self.threshold = weight, threshold
        self.stochastic, self.gradients, self.num_classes = defense.stochastic, defense.gradients, 2
        self.train(False)

    def logits(self, x: Tensor, noise: Noise, *, gradient: str = "exact", runs: int | None = None) -> Tensor:
        """Return logits of one run, as `Defense.logits`."""
        score = self.score(self.features(x, noise, gradient=gradient))
        return torch.stack((-score / 2, score / 2), 1)

    def score(self, features: Tensor) -> Tensor:
        """Return the scores of features [B, D], positive on the side of the planted class, [B]."""
        copies = len(features) // len(self.weight)
        weight, threshold = (t.repeat_interleave(copies, 0) for t in (self.weight, self.threshold))
        return (features * weight).sum(1) - threshold


@dataclass(frozen=True)
class Test:
    """The defense with readouts, its images [n, C, H, W], and those on which the test is valid (bool [n])."""

    defense: ReadoutDefense
    x: Tensor
    valid: Tensor

    def rows(self, at: slice) -> Test:
        """Return the test of some of the images."""
        defense = ReadoutDefense(self.defense.features, self.defense.weight[at], self.defense.threshold[at])
        return Test(defense, self.x[at], self.valid[at])


def binarisation(subject: Subject) -> Finding:
    """Check that PGD and APGD find the planted class on nearly all images, and random search does not."""
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
    text = (
        f"PGD and APGD find the planted class on {share:.0%} of {n} images [{low:.1%}, {high:.1%}], "
        f"random search on {chance:.0%}"
    )
    plot = Plot("bar", "", "found", {"found": (("PGD and APGD", "random search"), (share, chance))}, _FOUND)
    if chance > _RANDOM:
        return Finding(CHECK, "not applicable", f"{text}: too easy to tell anything", numbers, plot=plot)
    missed = (test.valid & ~attack).cpu().numpy()
    images = tuple(int(i) for i in subject.indices.numpy()[: len(x)][missed])
    return Finding(
        CHECK, status_of(high >= _FOUND), f"{text}; {_FOUND:.0%} is asked of the upper end", numbers, images, plot
    )


def _test(subject: Subject, x: Tensor) -> Test:
    """Return readouts by regularised linear discriminants, with the decision near the planted point."""
    features, draws = Features(subject.defense, x), _JUDGED * subject.budget.draws
    planted = boundary(x, subject.threat, _noise(subject, len(x), "planted"))

    def mean(points: Tensor, purpose: str) -> Tensor:
        return features.mean(points, draws, subject.seed_for(purpose))

    inside = _inside(subject, features, x)
    pairs = zip(inside, mean(planted, "readout"), strict=True)
    weight = torch.stack([_discriminant(points, point) for points, point in pairs])
    scores = torch.einsum("nid,nd->ni", inside, weight)
    # other draws than those that the readout was fitted on
    top = (mean(planted, "threshold") * weight).sum(1)
    threshold = scores.mean(1) + _OUT * (top - scores.mean(1))
    # logits of the size of the defense's, so that they saturate alike
    scale = _gap(subject, x) / (scores - threshold[:, None]).abs().mean(1).clamp_min(1e-12)
    defense = ReadoutDefense(features, weight * scale[:, None], threshold * scale)
    valid = (defense.score(mean(planted, "again")) > 0) & (defense.score(mean(x, "clean")) < 0)
    return Test(defense, x, valid)


def _inside(subject: Subject, features: Features, x: Tensor) -> Tensor:
    """Return features of inner points [n, points, D], computed image by image to save memory."""
    count, noise = subject.budget.inner, _noise(subject, len(x), "inner")
    inside = []
    for i in range(len(x)):
        points = inner(
            x[i : i + 1].expand(count, -1, -1, -1), subject.threat, noise.rows(slice(i, i + 1)).copies(count)
        )
        inside.append(features.mean(points, _COPIES, subject.seed_for("inner", i)))
    return torch.stack(inside)


def _discriminant(points: Tensor, planted: Tensor) -> Tensor:
    """Return the direction [D] that best separates a point [D] from others [N, D] (Fisher 1936, with a ridge)."""
    others = points.double()
    centred = others - others.mean(0)
    covariance = centred.T @ centred / len(others)
    ridge = _RIDGE * covariance.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(len(covariance), dtype=others.dtype, device=others.device)
    direction = torch.linalg.solve(covariance + ridge * eye, planted.double() - others.mean(0))
    unit: Tensor = direction / direction.norm().clamp_min(1e-30)
    return unit.to(points)


def _gap(subject: Subject, x: Tensor) -> Tensor:
    """Return the mean gap between the top two logits of the defense."""
    with torch.no_grad():
        top = subject.defense.logits(x, Noise.of(subject.seed, len(x), x.device)).topk(2).values
    gap: Tensor = (top[:, 0] - top[:, 1]).mean().clamp_min(1e-6)
    return gap


def _attack(subject: Subject, test: Test) -> Tensor:
    """Return where PGD or APGD reaches the planted class, bool [n].

    PGD runs on all images together; its steps of a fixed size miss some planted points of honest defenses. Those images
    are attacked by APGD one by one, since it regroups rows, and a readout belongs to one image.
    """
    all_rows = slice(0, len(test.x))
    reached = torch.stack([_attack_rows(subject, test, subject.pgd(mode), all_rows) for mode in subject.modes]).any(0)
    for i in torch.nonzero(test.valid & ~reached).flatten().tolist():
        row = slice(i, i + 1)
        reached[i] = any(_attack_rows(subject, test, _apgd(subject, mode), row).item() for mode in subject.modes)
    return reached


def _apgd(subject: Subject, mode: str) -> AttackRun:
    """Return APGD; on a deterministic defense AutoAttack's, on the cross-entropy.

    The margin of `bench:apgd` for one copy would hide that the white box has no gradient where the softmax saturates.
    """
    if subject.defense.stochastic:
        return subject.iterative(mode)
    return AttackRun("autoattack:apgd-ce", {"n_iter": subject.budget.steps}, mode, 1, str(subject.threat.eps))


def _attack_rows(subject: Subject, test: Test, attack: AttackRun, rows: slice) -> Tensor:
    """Return where an attack on some of the images reaches the planted class, bool [rows]."""
    test = test.rows(rows)
    spec = subject.view(attack.gradient, attack.eot)
    inside = torch.zeros(len(test.x), dtype=torch.int64, device=test.x.device)
    x_adv = attacked(
        test.defense, spec, attack, test.x, inside, norm=subject.threat.norm,
        seed=subject.seed_for(CHECK, attack.gradient),
        num_classes=2, indices=subject.indices[rows],
    )  # fmt: skip
    return _reached(subject, test, x_adv)


def _random_search(subject: Subject, test: Test) -> Tensor:
    """Return where the best random boundary point reaches the planted class, of as many as PGD has steps, bool [n]."""
    x, noise = test.x, _noise(subject, len(test.x), "random")
    best, highest = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
    for i in range(subject.budget.steps):
        point = boundary(x, subject.threat, noise.child(i))
        score = test.defense.score(test.defense.features.mean(point, subject.eot, subject.seed_for("search", i)))
        better = score > highest
        best, highest = torch.where(better.view(-1, 1, 1, 1), point, best), torch.maximum(score, highest)
    return _reached(subject, test, best)


def _reached(subject: Subject, test: Test, x_adv: Tensor) -> Tensor:
    """Return where the mean score under further draws is positive, bool [n]."""
    draws = _JUDGED * subject.budget.draws
    return test.defense.score(test.defense.features.mean(x_adv, draws, subject.seed_for("judged"))) > 0


def _noise(subject: Subject, n: int, purpose: str) -> Noise:
    """Return a noise stream for each of the first n images."""
    return Noise.of(subject.seed_for("points"), subject.indices[:n], subject.x.device).child(_STREAMS[purpose])
