"""A defense under audit: its images, and the attacks on it, whose outcomes are cached."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from bench.attacks.registry import find_attack
from bench.audit.budgets import Budget
from bench.audit.fixed_noise import Fixed
from bench.evaluation.certificates.information import carries_information
from bench.evaluation.devices import device_of
from bench.evaluation.verdict import verdict
from bench.evaluation.view import attack_view
from bench.execution.sources import Sources
from bench.spec.cell import DefenseRef
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from bench.store.audits import VERSION
from bench.store.environment import versions
from bench.store.folder import write_atomic
from defenses.core.defense import Defense
from defenses.core.noise import Noise
from defenses.utils.checksums import digest
from defenses.utils.json_values import Json, JsonView

_MODES = ("exact", "bpda")  # of the white box, where a defense has them
FINITE = ("smooth", "difference")  # further ones, where exact gradients equal those of BPDA
_RAMP = 4  # copies of `bench:apgd` at its end, as a multiple of those at its start


@dataclass(frozen=True)
class AttackRun:
    """An attack of the audit.

    Args:
        attack: name for `find_attack`.
        params: its parameters.
        gradient: gradient mode of the view.
        eot: copies of a randomised defense in a call.
        eps: radius, as "1/2".
        against: "defense"; "other" (a surrogate, whose adversarial images are judged by the defense); or "fixed" (the
            defense under noise that the attacker knows, attacked and judged).
        restart: number of the repetition, each with another seed.
    """

    attack: str
    params: JsonView
    gradient: str
    eot: int
    eps: str
    against: str = "defense"
    restart: int = 0


@dataclass(frozen=True)
class ImageAccuracies:
    """Shares of right draws of every image, of the held-out and of the selection draws, each [N]."""

    held_out: tuple[float, ...]
    selection: tuple[float, ...]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Shares of right held-out draws, [N]."""
        return np.asarray(self.held_out)

    @property
    def accuracy(self) -> float:
        """Mean of the shares."""
        return float(self.shares.mean())


def worst(outcomes: Sequence[ImageAccuracies]) -> ImageAccuracies:
    """Return for each image the worst attack, selected on selection draws and counted on held-out ones."""
    selection = np.array([o.selection for o in outcomes])
    at = selection.argmin(0)
    columns = np.arange(selection.shape[1])
    held_out = np.array([o.held_out for o in outcomes])
    return ImageAccuracies(tuple(held_out[at, columns].tolist()), tuple(selection[at, columns].tolist()))


@dataclass
class Subject:
    """A defense under audit.

    Args:
        defense: on its device.
        label: of the defense, for tables.
        fingerprint: of the defense, as cells have it.
        x: images [N, C, H, W] in [0, 1], on the same device.
        y: labels, int64 [N].
        indices: positions of the images in the data set, int64 [N].
        num_classes: number of classes.
        dataset: name of the data set.
        threat: norm and eps at which the defense is evaluated.
        budget: sizes of the audit.
        seed: of attacks and verdicts.
        folder: of cached outcomes.
        other: the surrogate, a network of the same classes; None: there is none, or it is the defense.
        other_fingerprint: of the surrogate.
        code: what the defense was made of, for the user's code and files in it; None: it is not known.
        report: called with a line of text for every attack.
    """

    defense: Defense
    label: str
    fingerprint: Mapping[str, object]
    x: Tensor
    y: Tensor
    indices: Tensor
    num_classes: int
    dataset: str
    threat: ThreatModel
    budget: Budget
    seed: int
    folder: Path
    other: Defense | None = None
    other_fingerprint: Mapping[str, object] | None = None
    code: DefenseRef | None = None
    report: Callable[[str], None] = field(default=lambda _: None)

    @property
    def key(self) -> str:
        """Hash of all that the outcomes depend on."""
        facts = [self.fingerprint, self.other_fingerprint, self.dataset, self.indices.tolist(), str(self.threat)]
        return digest([VERSION, versions(), *facts, asdict(self.budget), self.seed], default=str)[:16]

    @cached_property
    def informative(self) -> bool:
        """True if exact gradients differ from those of BPDA; for piecewise linear energies they do not."""
        x = self.x[:4]
        return carries_information(self.defense, x, Noise.of(self.seed_for("information"), len(x), x.device))

    @property
    def modes(self) -> tuple[str, ...]:
        """Gradient modes of the white box."""
        modes = _MODES if self.informative else (*_MODES, *FINITE)
        return tuple(m for m in modes if m in self.defense.gradients) or self.defense.gradients[:1]

    @property
    def eot(self) -> int:
        """Copies of the defense that an attack averages."""
        return self.budget.eot if self.defense.stochastic else 1

    def view(self, gradient: str, eot: int) -> ViewSpec:
        """Return a view of the defense; copies of one run each replace the deployed runs."""
        return ViewSpec(gradient, eot, 1) if self.defense.stochastic else ViewSpec(gradient)

    def pgd(self, gradient: str, **changes: Any) -> AttackRun:
        """Return projected gradient descent on the cross-entropy (Madry et al. 2018), with a fixed number of copies."""
        steps = int(changes.pop("steps", self.budget.steps))
        params = {"steps": steps, "rel_stepsize": 2.5 / steps}
        attack = AttackRun(f"foolbox:{self.threat.norm}PGD", params, gradient, self.eot, str(self.threat.eps))
        return replace(attack, **changes)

    def iterative(self, gradient: str, **changes: Any) -> AttackRun:
        """Return the iterative attack: `bench:apgd` on a randomised defense, PGD on any other one.

        `bench:adaptive` starts with the bare classifier, which would hide gradients that are worse than transfer.
        """
        if not self.defense.stochastic:
            return self.pgd(gradient, **changes)
        steps, copies = changes.pop("steps", self.budget.steps), changes.pop("eot", self.eot)
        return replace(self.adaptive("apgd", {"steps": steps}, gradient, (copies, _RAMP * copies)), **changes)

    def adaptive(self, name: str, params: JsonView, gradient: str, eot: tuple[int, int]) -> AttackRun:
        """Return an attack of `bench.attacks.adaptive`, which makes its copies itself."""
        params = {**params, "eot": list(eot), "draws": self.budget.draws}
        return AttackRun(f"bench:{name}", params, gradient, 1, str(self.threat.eps))

    def white(self, **changes: object) -> ImageAccuracies:
        """Return the outcome of the white box: of the iterative attack through every mode, for each image the worst."""
        return worst([self.run(self.iterative(mode, **changes)) for mode in self.modes])

    def strongest(self) -> ImageAccuracies:
        """Return the outcome of the white box; on a randomised defense, for each image the worst of it and PGD."""
        pgd = [self.run(self.pgd(mode)) for mode in self.modes] if self.defense.stochastic else []
        return worst([self.white(), *pgd])

    def run(self, attack: AttackRun) -> ImageAccuracies:
        """Return the outcome of an attack, run now or read from the folder."""
        facts = asdict(attack)
        file = f"attack-{digest(facts, default=str)[:12]}"
        content = self.cached(file, lambda: asdict(self._attack(attack)) | {"attack_run": facts})
        return ImageAccuracies(tuple(content["held_out"]), tuple(content["selection"]))

    def cached(self, name: str, measure: Callable[[], Json]) -> Json:
        """Return a measurement, made now or in an earlier run of the same audit with the same code and files.

        Args:
            name: of the file.
            measure: returns the measurement, for JSON.
        """
        file, sources = self.folder / self.key / f"{name}.json", Sources()
        if file.is_file():
            earlier: dict[str, object] = json.loads(file.read_text(encoding="utf-8"))
            if self.code is None or not sources.reason_against(self.code, earlier):
                return earlier
        content = measure()
        if self.code is not None and (entries := sources.of_defense(self.code)):
            content |= {"sources": entries}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(content, sort_keys=True) + "\n")
        return content

    def images(self, mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
        """Return the positions in the data set of the images of a mask [N]."""
        return tuple(int(i) for i in self.indices.numpy()[mask])

    def seed_for(self, *purpose: object) -> int:
        """Return a 31-bit seed for a purpose."""
        return int(digest([self.seed, *map(str, purpose)])[:8], 16) >> 1

    def _attack(self, attack: AttackRun) -> ImageAccuracies:
        """Return the outcome of an attack, run now."""
        self.report(f"{attack.attack} at {attack.eps}, {attack.gradient}, {attack.against}")
        judged = Fixed(self.defense, self.seed_for("fixed")) if attack.against == "fixed" else self.defense
        target = judged
        if attack.against == "other":
            assert self.other is not None
            target = self.other
        spec = self.view(attack.gradient, attack.eot) if target is self.defense else ViewSpec(attack.gradient)
        x_adv = attacked(
            target, spec, attack, self.x, self.y, norm=self.threat.norm, seed=self.seed_for(asdict(attack)),
            num_classes=self.num_classes, indices=self.indices,
        )  # fmt: skip
        draws = self.budget.draws
        answers = verdict(judged, x_adv, self.indices, draws=draws, selection=draws // 2, seed=self.seed)
        if not answers.finite.all():
            raise FloatingPointError("the defense returned logits that are not finite")
        right = ((answers.predictions == self.y) & ~answers.rejected).double().cpu()
        held_out = answers.held_out
        selection = ~held_out if (~held_out).any() else held_out
        return ImageAccuracies(tuple(right[held_out].mean(0).tolist()), tuple(right[selection].mean(0).tolist()))


def attacked(
    target: Defense,
    spec: ViewSpec,
    attack_run: AttackRun,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    seed: int,
    num_classes: int,
    indices: Tensor,
) -> Tensor:
    """Return the adversarial images of an attack as the library gives them, [N, C, H, W].

    Args:
        target: the attacked defense.
        spec: view of the target.
        attack_run: the attack.
        x: images [N, C, H, W] in [0, 1].
        y: labels, int64 [N].
        norm: of the ball.
        seed: of the attack and of the view's noise.
        num_classes: number of classes.
        indices: positions of the images in the data set, int64 [N].

    Raises:
        FloatingPointError: images that are not finite.
    """
    threat = ThreatModel.of(norm, attack_run.eps)
    attack = find_attack(attack_run.attack, attack_run.params)
    attack.load()
    with attack_view(target, spec, seed=seed) as (view, _):
        images = attack.run(
            view, x.clone(), y.clone(), threat=threat, target=None, seed=seed, num_classes=num_classes,
            indices=indices, **attack_run.params,
        )  # fmt: skip
    x_adv: Tensor = images.detach().to(device_of(target)).float()
    if not x_adv.isfinite().all():
        raise FloatingPointError("the attack returned values that are not finite")
    return x_adv
