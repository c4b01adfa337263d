"""Gradient modes and stages of the adaptive attacks, and their run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench.attacks.adaptive.ascent import Ascent
from bench.attacks.adaptive.batch_scheduler import CallCounts, Program, run
from bench.attacks.adaptive.losses import NEEDS
from bench.attacks.adaptive.problem import SPSA, Problem, Stage
from bench.attacks.adaptive.queries import Query
from bench.attacks.adaptive.settings import Settings
from bench.attacks.adaptive.square import RandomSearch
from bench.attacks.base import Unsupported
from defenses.core.detector import guard_of

CASCADE = ("blind", "bpda", "surrogate", "exact")  # by rising cost
_OTHER_FORWARD = ("blind", "surrogate")  # modes whose values are not those of the deployed defense


def stages_of(settings: Settings, modes: tuple[str, ...]) -> tuple[Stage, ...]:
    """Return the stages of an attack: every restart goes through all modes."""
    stages, rank = [], 0
    for restart in range(settings.restarts):
        loss, _, targeted = settings.losses[restart % len(settings.losses)].partition("-")
        rank += bool(targeted)
        for i, mode in enumerate(modes):
            steps = settings.steps if mode == modes[-1] else max(1, settings.steps // 2)
            stages.append(Stage(mode, loss, rank if targeted else 0, i == 0, steps))
    return tuple(stages)


def modes_of(local: str, view: Any) -> tuple[str, ...]:
    """Return the gradient modes that an attack goes through.

    Raises:
        Unsupported: the defense has no bare classifier to transfer from.
    """
    gradient: str = view.spec.gradient
    if local == "spsa":
        return (SPSA,)
    if local == "transfer":
        if "blind" not in view.defense.gradients:
            raise Unsupported("transfer needs a defense before a classifier, and this is one whole")
        return ("blind",)
    if local != "adaptive" or not _varies(view):
        return (gradient,)
    mode = view.spec.mode
    cheaper = CASCADE[: CASCADE.index(mode)] if mode in CASCADE else CASCADE[:-1]
    return (*(m for m in cheaper if m in view.defense.gradients), gradient)


def _varies(view: Any) -> bool:
    """Return True if the logits of an image vary between calls; under a known seed they do not."""
    return bool(view.stochastic) and not view.spec.known


def forward_mode(view: Any) -> str:
    """Return a mode with the logits of the deployed defense; under a blind view, of the bare classifier."""
    gradient: str = view.spec.gradient
    if gradient == "blind" or view.spec.mode not in _OTHER_FORWARD:
        return gradient
    gradients: tuple[str, ...] = view.defense.gradients
    return next(m for m in gradients if m not in _OTHER_FORWARD)


def program_of(local: str, view: Any, problem: Problem, settings: Settings) -> Any:
    """Return the program of an attack, with a work item per image.

    Args:
        local: name of the attack.
        view: an `AttackView`.
        problem: the images.
        settings: of the attack.

    Raises:
        Unsupported: the attack cannot run on the view, threat or classes.
    """
    if view.spec.eot != 1:
        raise Unsupported(f"bench:{local} makes copies of its own; take eot = {view.spec.eot} out of the view")
    runs = view.spec.runs or (None if settings.on_top or view.spec.known else 1)
    guard = guard_of(view.defense) if settings.detector else None
    if settings.detector and guard is None:
        raise Unsupported(f"bench:{local} with detector = {settings.detector:g} needs a detector beside the defense")
    query = Query(view, runs=runs, rows=settings.rows, guard=guard)
    if local == "square":
        return RandomSearch(problem, query, settings, forward_mode(view), varying=_varies(view))
    stages = stages_of(settings, modes_of(local, view))
    _check_classes(local, stages, problem)
    return Ascent(problem, query, settings, stages, forward_mode(view), varying=_varies(view), plain=local == "pgd")


def _check_classes(local: str, stages: tuple[Stage, ...], problem: Problem) -> None:
    """Refuse a loss that needs more classes."""
    k, targeted = problem.num_classes, bool(problem.aim.towards.any())
    for stage in stages:
        need = NEEDS[f"{stage.loss}-targeted" if stage.loss == "dlr" and (stage.rank or targeted) else stage.loss]
        if k < need:
            raise Unsupported(f"the loss {stage.loss} of bench:{local} needs {need} classes, the data set has {k}")


def adversarial_images(local: str, view: Any, problem: Problem, settings: Settings) -> Tensor:
    """Run an attack, and return the adversarial images, float32 [B, C, H, W]; arguments as of `program_of`."""
    program = program_of(local, view, problem, settings)
    scheduled(program, view, settings)
    result: Tensor = program.result()
    return result


def scheduled(program: Program, view: Any, settings: Settings) -> CallCounts:
    """Run a program in batches of at most `settings.rows`, or fewer where memory ran out."""
    return run(program, lambda: min(settings.rows, view.memory.limit or settings.rows))
