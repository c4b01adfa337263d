"""Run one cell: attack a view, freeze the result, judge it on the deployed defense, and put down what happened."""

from __future__ import annotations

import time
import traceback

import torch
from torch import Tensor

from bench.attacks.precomputed import UNCHANGED
from bench.attacks.registry import Unsupported, find_attack
from bench.evaluation.batching import BatchLimit, batch_limit, release_cached_memory
from bench.evaluation.cost import Cost, seconds_since
from bench.evaluation.deployed import ask
from bench.evaluation.devices import device_of
from bench.evaluation.view import attack_view
from bench.execution.records import Block, _records, draw_columns, failure
from bench.spec.cell import GIVEN, NULLS, Cell
from bench.spec.threat import distances, in_box, target_labels
from bench.spec.view import ViewSpec
from bench.store.folder import CellResult
from defenses.core.defense import Defense
from defenses.utils.errors import UserError
from defenses.utils.parameters import decode
from defenses.utils.text import clean

_LONGEST = 400  # characters of a message
_SAME = 1e-6  # as much as rounding to float32 and back may change


def execute(
    cell: Cell,
    defense: Defense,
    block: Block,
    num_classes: int,
    *,
    made: Tensor | None = None,
    surrogate: Defense | None = None,
) -> CellResult:
    """Run a cell; what goes wrong in the attack or the defense is recorded and not raised.

    Args:
        cell: what to run.
        defense: the loaded defense.
        block: its images.
        num_classes: K.
        made: what the attack returned in an earlier run, float32 like the images, to be judged again; None: attack.
        surrogate: the defense whose view is attacked, for a cell that has one; None: `defense`.

    Returns:
        The result; its line says status "ok", "error" or "unsupported".

    Raises:
        UserError: bad input that concerns more than this cell.
    """
    line = cell.columns() | {"status": "ok", "error": None, "identity": cell.identity()}
    try:
        target = target_labels(cell.threat, block.y, block.indices, num_classes, cell.seed)
        if made is None:
            x_adv, cost = attacked(cell, defense, block, target, num_classes, surrogate)
        else:
            x_adv, cost = made, Cost()
        problems = _problems(cell, block.x, x_adv)
        judged, beyond = _judged(cell, block.x, x_adv, problems)
        said = ask(cell, defense, judged, block.y, block.indices)
        unanswered = "the defense returned logits that are not finite"
        problems = [p or ("" if f else unanswered) for p, f in zip(problems, said.finite.tolist(), strict=True)]
    except Unsupported as reason:
        return CellResult(line | {"status": "unsupported", "error": _first_line(reason)})
    except (UserError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        return failure(cell, f"{type(error).__name__}: {_first_line(error)}".rstrip(": "), traceback.format_exc())
    line |= {
        "seconds_attack": cost.seconds,
        "forwards": cost.forwards,
        "backwards": cost.backwards,
        "queries": cost.queries,
        "seconds_verdict": said.cost.seconds,
        "forwards_verdict": said.cost.forwards,
        "backwards_verdict": said.cost.backwards,
    }
    notes = _notes(cost, said.cost)
    if cell.attack.name.startswith(GIVEN) and torch.allclose(x_adv, block.x, rtol=0, atol=_SAME):
        notes.append(UNCHANGED)
    if notes:
        line["notes"] = notes
    if any(problems):
        n = sum(map(bool, problems))
        line["error"] = f"{n} of {len(problems)} images: {next(filter(None, problems))}"
    records = _records(cell, block, target, x_adv, beyond, problems, said, cost)
    stored = draw_columns(cell, block, said.draws, problems)
    return CellResult(line, records, stored, x_adv.numpy())


def _first_line(error: BaseException) -> str:
    """What an error says, in one line; "" where it says nothing, and its type has to do."""
    text = str(error).strip()
    return clean(text.splitlines()[0][:_LONGEST]) if text else ""


def _notes(attack: Cost, judged: Cost) -> list[str]:
    pairs = (("ran", attack.rows), ("was judged", judged.rows))
    return [f"{what} with {n} rows at once after running out of memory" for what, n in pairs if n is not None]


def attacked(
    cell: Cell,
    defense: Defense,
    block: Block,
    target: Tensor | None,
    num_classes: int,
    surrogate: Defense | None = None,
) -> tuple[Tensor, Cost]:
    """(what the attack of a cell returns, as float32 on the CPU; its cost); `execute` has the arguments.

    Raises:
        Unsupported: the defense lacks the gradient mode, or the attack cannot run.
    """
    if surrogate is not None:
        defense = surrogate
    elif cell.view.mode not in defense.gradients:
        raise Unsupported(f'{cell.defense.label} has no gradient mode "{cell.view.gradient}"')
    with batch_limit(defense) as memory:
        while True:
            try:
                return _attempt(cell, defense, block, target, num_classes, memory)
            except Exception as error:
                # The view has done what it could: this is a graph that the attack holds. Again, in smaller pieces.
                if not memory.ran_out(error, memory.asked):
                    raise
            release_cached_memory()


def _attempt(
    cell: Cell, defense: Defense, block: Block, target: Tensor | None, num_classes: int, memory: BatchLimit
) -> tuple[Tensor, Cost]:
    device = device_of(defense)
    params = decode(cell.attack.params)
    attack = find_attack(cell.attack.name, params)
    # All defenses meet the same noise in the ball.
    seed = cell.seed if cell.attack.name in NULLS else cell.noise_seed("attack") % (1 << 32)
    x, y = block.x.to(device), block.y.to(device)
    attack.load()
    look = ViewSpec() if cell.surrogate else cell.view  # "blind" is of the defense; its surrogate is all there is
    view_seed = cell.seed if look.known else cell.noise_seed("view")
    with attack_view(defense, look, seed=view_seed, memory=memory) as (view, meter):
        begin = time.perf_counter()
        x_adv = attack.run(
            view,
            x.clone(),
            y.clone(),
            threat=cell.threat,
            target=None if target is None else target.to(device),
            seed=seed,
            num_classes=num_classes,
            indices=block.indices,
            **params,
        )
        cost = Cost(seconds_since(begin), meter.forwards, meter.backwards, view.queries, memory.limit)
    if not isinstance(x_adv, Tensor) or x_adv.shape != block.x.shape:
        shape = tuple(x_adv.shape) if isinstance(x_adv, Tensor) else type(x_adv).__name__
        raise ValueError(f"the attack returned {shape} for images {tuple(block.x.shape)}")
    if not x_adv.is_floating_point():
        raise ValueError(f"the attack returned {x_adv.dtype}; images are of floating point")
    return x_adv.detach().to("cpu", torch.float32).contiguous(), cost


def _problems(cell: Cell, x: Tensor, x_adv: Tensor) -> list[str]:
    """Per image, why a result cannot be judged; "" when it can. A minimisation attack may end outside the ball."""
    size = distances(x, x_adv)[cell.threat.norm]
    limit = float(cell.threat.eps) + cell.threat.tolerance
    problems = []
    for finite, boxed, d in zip(torch.isfinite(x_adv.flatten(1)).all(1), in_box(x_adv), size.tolist(), strict=True):
        if not finite:
            problems.append("the attack returned values that are not finite")
        elif not boxed:
            problems.append("the attack left the box [0, 1]")
        elif d > limit and not cell.attack.minimisation:
            problems.append(f"the attack left the {cell.threat.norm} ball: {d:.6g} > {float(cell.threat.eps):.6g}")
        else:
            problems.append("")
    return problems


def _judged(cell: Cell, x: Tensor, x_adv: Tensor, problems: list[str]) -> tuple[Tensor, Tensor]:
    """(images to judge, bool [B] beyond eps): where a minimisation attack needs more than eps, it has failed."""
    beyond = distances(x, x_adv)[cell.threat.norm] > float(cell.threat.eps) + cell.threat.tolerance
    keep_clean = beyond | torch.tensor([bool(p) for p in problems])
    return torch.where(keep_clean.view(-1, 1, 1, 1), x, x_adv), beyond
