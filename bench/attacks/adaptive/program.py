"""What is attacked, which stages an attack has, and the run of one attack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from bench.attacks.adaptive.batch_scheduler import Program, Tally, run
from bench.attacks.adaptive.losses import NEEDS
from bench.attacks.adaptive.problem import SPSA, Problem, Stage
from bench.attacks.adaptive.queries import Query
from bench.attacks.adaptive.settings import Settings
from bench.attacks.base import Unsupported
from defenses.core.detector import guard_of

if TYPE_CHECKING:
    pass

CASCADE = ("blind", "bpda", "surrogate", "exact")  # from cheap to dear
_OTHER_FORWARD = ("blind", "surrogate")  # modes whose values are not those of the deployed defense


def stages_of(settings: Settings, modes: tuple[str, ...]) -> tuple[Stage, ...]:
    """The stages of an attack: every restart goes through all modes."""
    found, rank = [], 0
    for restart in range(settings.restarts):
        loss, _, targeted = settings.losses[restart % len(settings.losses)].partition("-")
        rank += bool(targeted)
        for i, mode in enumerate(modes):
            steps = settings.steps if mode == modes[-1] else max(1, settings.steps // 2)
            found.append(Stage(mode, loss, rank if targeted else 0, i == 0, steps))
    return tuple(found)


def modes_of(local: str, view: Any) -> tuple[str, ...]:
    """The gradient modes that an attack goes through.

    Raises:
        Unsupported: the defense has no bare classifier to transfer from.
    """
    own: str = view.spec.gradient
    if local == "spsa":
        return (SPSA,)
    if local == "transfer":
        if "blind" not in view.defense.gradients:
            raise Unsupported("transfer needs a defense before a classifier, and this is one whole")
        return ("blind",)
    if local != "adaptive" or not _varies(view):
        return (own,)
    mode = view.spec.mode
    cheaper = CASCADE[: CASCADE.index(mode)] if mode in CASCADE else CASCADE[:-1]
    return (*(m for m in cheaper if m in view.defense.gradients), own)


def _varies(view: Any) -> bool:
    """Whether the attacker meets other answers every time; not one who knows the seed."""
    return bool(view.stochastic) and not view.spec.known


def forward_mode(view: Any) -> str:
    """A mode whose values are those of the deployed defense; under a blind view, those of the bare classifier."""
    own: str = view.spec.gradient
    if own == "blind" or view.spec.mode not in _OTHER_FORWARD:
        return own
    gradients: tuple[str, ...] = view.defense.gradients
    return next(m for m in gradients if m not in _OTHER_FORWARD)


def program_of(local: str, view: Any, problem: Problem, settings: Settings) -> Any:
    """The work items of an attack.

    Raises:
        Unsupported: what the attack asks of view, threat and classes does not go together.
    """
    if view.spec.eot != 1:
        raise Unsupported(f"bench:{local} makes copies of its own; take eot = {view.spec.eot} out of the view")
    runs = view.spec.runs or (None if settings.on_top or view.spec.known else 1)
    guard = guard_of(view.defense) if settings.detector else None
    if settings.detector and guard is None:
        raise Unsupported(f"bench:{local} with detector = {settings.detector:g} needs a detector beside the defense")
    ask = Query(view, runs=runs, rows=settings.rows, guard=guard)
    if local == "square":
        from bench.attacks.adaptive.square import RandomSearch

        return RandomSearch(problem, ask, settings, forward_mode(view), varying=_varies(view))
    from bench.attacks.adaptive.ascent import Ascent

    stages = stages_of(settings, modes_of(local, view))
    _check_classes(local, stages, problem)
    return Ascent(problem, ask, settings, stages, forward_mode(view), varying=_varies(view), plain=local == "pgd")


def _check_classes(local: str, stages: tuple[Stage, ...], problem: Problem) -> None:
    k, given = problem.num_classes, bool(problem.aim.towards.any())
    for stage in stages:
        need = NEEDS[f"{stage.loss}-targeted" if stage.loss == "dlr" and (stage.rank or given) else stage.loss]
        if k < need:
            raise Unsupported(f"the loss {stage.loss} of bench:{local} needs {need} classes, the data set has {k}")


def attacked(local: str, view: Any, problem: Problem, settings: Settings) -> Tensor:
    """The adversarial images, float32 [B, C, H, W]."""
    program = program_of(local, view, problem, settings)
    scheduled(program, view, settings)
    result: Tensor = program.result()
    return result


def scheduled(program: Program, view: Any, settings: Settings) -> Tally:
    """Run a program in batches of at most `settings.rows`, or fewer where memory ran out."""
    return run(program, lambda: min(settings.rows, view.memory.limit or settings.rows))
