"""A defense under audit: its images, and the attacks on it, each run once and kept."""

from __future__ import annotations

import hashlib
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
from bench.spec.threat import ThreatModel
from bench.spec.view import ViewSpec
from bench.store.environment import versions
from bench.store.folder import write_atomic
from defenses.core.defense import Defense
from defenses.core.noise import Noise

VERSION = 3  # counts up when the same defense would be found otherwise
_MODES = ("exact", "bpda")  # of the white box, as far as a defense has them
FINITE = ("smooth", "difference")  # besides, where exact gradients say no more than BPDA's
_RAMP = 4  # `bench:apgd` ends with so many times the copies that it begins with


@dataclass(frozen=True)
class AttackRun:
    """One attack of the audit.

    Args:
        attack: name for `find_attack`.
        params: its parameters.
        gradient: mode of the view.
        eot: copies of a randomised defense in a call.
        eps: radius, as "1/2".
        against: "defense"; "other" (an undefended network, of which the images are tried on the defense); or "fixed"
            (the defense under noise that the attacker knows, attacked and judged).
        restart: which of several repetitions with other seeds.
    """

    attack: str
    params: Mapping[str, Any]
    gradient: str
    eot: int
    eps: str
    against: str = "defense"
    restart: int = 0


@dataclass(frozen=True)
class Outcome:
    """Right draws of every image: shares of the held-out draws, and of those that choose among attacks, each [N]."""

    held_out: tuple[float, ...]
    selection: tuple[float, ...]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Of the held-out draws, [N]."""
        return np.asarray(self.held_out)

    @property
    def accuracy(self) -> float:
        """Their mean."""
        return float(self.shares.mean())


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Per image the worst attack, chosen on selection draws and counted on held-out ones."""
    selection = np.array([o.selection for o in outcomes])
    at = selection.argmin(0)
    columns = np.arange(selection.shape[1])
    held_out = np.array([o.held_out for o in outcomes])
    return Outcome(tuple(held_out[at, columns].tolist()), tuple(selection[at, columns].tolist()))


@dataclass
class Subject:
    """What an audit looks at.

    Args:
        defense: on its device.
        label: for tables.
        fingerprint: of the defense, as cells have it.
        x: images [N, C, H, W] in [0, 1], on the same device.
        y: labels, int64 [N].
        indices: in the data set, int64 [N].
        num_classes: K.
        dataset: its name.
        threat: norm and eps at which the defense is evaluated.
        budget: sizes.
        seed: of everything.
        folder: where what is finished is kept.
        other: an undefended network of the same classes; None: there is none, or it is the defense.
        other_fingerprint: of it.
        report: is told what is attacked now.
    """

    defense: Defense
    label: str
    fingerprint: Mapping[str, Any]
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
    other_fingerprint: Mapping[str, Any] | None = None
    report: Callable[[str], None] = field(default=lambda _: None)

    @property
    def key(self) -> str:
        """Names the audit: a hash of all that it depends on."""
        of = [self.fingerprint, self.other_fingerprint, self.dataset, self.indices.tolist(), str(self.threat)]
        return _digest([VERSION, versions(), *of, asdict(self.budget), self.seed])[:16]

    @cached_property
    def informative(self) -> bool:
        """Whether exact gradients say more than BPDA's: of piecewise linear energies they do not."""
        few = self.x[:4]
        return carries_information(self.defense, few, Noise.of(self.number("information"), len(few), few.device))

    @property
    def modes(self) -> tuple[str, ...]:
        """Gradient modes of the white box."""
        wanted = _MODES if self.informative else (*_MODES, *FINITE)
        return tuple(m for m in wanted if m in self.defense.gradients) or self.defense.gradients[:1]

    @property
    def eot(self) -> int:
        """Copies of one prediction that an attack averages."""
        return self.budget.eot if self.defense.stochastic else 1

    def view(self, gradient: str, eot: int) -> ViewSpec:
        """How attacks look at the defense: copies of one run each stand in for the deployed runs."""
        return ViewSpec(gradient, eot, 1) if self.defense.stochastic else ViewSpec(gradient)

    def pgd(self, gradient: str, **changes: Any) -> AttackRun:
        """Projected gradient descent on the cross-entropy (Madry et al. 2018), with a fixed number of copies."""
        steps = int(changes.pop("steps", self.budget.steps))
        params = {"steps": steps, "rel_stepsize": 2.5 / steps}
        shot = AttackRun(f"foolbox:{self.threat.norm}PGD", params, gradient, self.eot, str(self.threat.eps))
        return replace(shot, **changes)

    def iterative(self, gradient: str, **changes: Any) -> AttackRun:
        """The iterative attack on a randomised defense is `bench:apgd`, on any other one PGD.

        Not `bench:adaptive`: it begins with the bare classifier, and so hides gradients that are worse than transfer.
        """
        if not self.defense.stochastic:
            return self.pgd(gradient, **changes)
        steps, copies = (changes.pop(name, own) for name, own in (("steps", self.budget.steps), ("eot", self.eot)))
        return replace(self.own("apgd", {"steps": steps}, gradient, (copies, _RAMP * copies)), **changes)

    def own(self, name: str, params: Mapping[str, Any], gradient: str, eot: tuple[int, int]) -> AttackRun:
        """One of `bench.attacks.adaptive.suite`, which makes its copies itself."""
        params = {**params, "eot": list(eot), "draws": self.budget.draws}
        return AttackRun(f"bench:{name}", params, gradient, 1, str(self.threat.eps))

    def white(self, **changes: Any) -> Outcome:
        """The white box: the iterative attack through every mode, per image the worst."""
        return worst([self.run(self.iterative(mode, **changes)) for mode in self.modes])

    def strongest(self) -> Outcome:
        """The white box; on a randomised defense with PGD beside it, per image the worst."""
        pgd = [self.run(self.pgd(mode)) for mode in self.modes] if self.defense.stochastic else []
        return worst([self.white(), *pgd])

    def run(self, shot: AttackRun) -> Outcome:
        """The outcome of an attack, from the folder where it has been made."""
        what = asdict(shot)
        said = self.kept(f"shot-{_digest(what)[:12]}", lambda: asdict(self._made(shot)) | {"shot": what})
        return Outcome(tuple(said["held_out"]), tuple(said["selection"]))

    def kept(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Something measured: made now, or in an earlier run of the same audit."""
        file = self.folder / self.key / f"{name}.json"
        if file.is_file():
            known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return known
        made = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(made, sort_keys=True) + "\n")
        return made

    def images(self, shares: npt.NDArray[np.bool_]) -> tuple[int, ...]:
        """The data set's indices of some images."""
        return tuple(int(i) for i in self.indices.numpy()[shares])

    def number(self, *purpose: object) -> int:
        """A 31-bit seed of one purpose."""
        return int(_digest([self.seed, *map(str, purpose)])[:8], 16) >> 1

    def _made(self, shot: AttackRun) -> Outcome:
        self.report(f"{shot.attack} at {shot.eps}, {shot.gradient}, {shot.against}")
        judged = Fixed(self.defense, self.number("fixed")) if shot.against == "fixed" else self.defense
        target = judged
        if shot.against == "other":
            assert self.other is not None
            target = self.other
        spec = self.view(shot.gradient, shot.eot) if target is self.defense else ViewSpec(shot.gradient)
        x_adv = attacked(
            target, spec, shot, self.x, self.y, norm=self.threat.norm, seed=self.number(asdict(shot)),
            num_classes=self.num_classes, indices=self.indices,
        )  # fmt: skip
        draws = self.budget.draws
        given = verdict(judged, x_adv, self.indices, draws=draws, selection=draws // 2, seed=self.seed)
        if not given.finite.all():
            raise FloatingPointError("the defense returned logits that are not finite")
        right = ((given.predictions == self.y) & ~given.rejected).double().cpu()
        held = given.held_out
        choosing = ~held if (~held).any() else held
        return Outcome(tuple(right[held].mean(0).tolist()), tuple(right[choosing].mean(0).tolist()))


def attacked(
    target: Defense,
    spec: ViewSpec,
    shot: AttackRun,
    x: Tensor,
    y: Tensor,
    *,
    norm: str,
    seed: int,
    num_classes: int,
    indices: Tensor,
) -> Tensor:
    """The images that an attack makes, as they come out, [N, C, H, W].

    Args:
        target: what is attacked.
        spec: how it is looked at.
        shot: which attack.
        x: images [N, C, H, W] in [0, 1].
        y: labels, int64 [N].
        norm: of the ball.
        seed: of the attack and of the view's noise.
        num_classes: K.
        indices: in the data set, int64 [N].
    """
    threat = ThreatModel(norm, shot.eps)  # type: ignore[arg-type]
    attack = find_attack(shot.attack, shot.params)
    attack.load()
    with attack_view(target, spec, seed=seed) as (view, _):
        made = attack.run(
            view, x.clone(), y.clone(), threat=threat, target=None, seed=seed, num_classes=num_classes,
            indices=indices, **shot.params,
        )  # fmt: skip
    x_adv: Tensor = made.detach().to(device_of(target)).float()
    if not x_adv.isfinite().all():
        raise FloatingPointError("the attack returned values that are not finite")
    return x_adv


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
