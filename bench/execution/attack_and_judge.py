"""Run a cell: attack a view, and judge the adversarial images on the deployed defense."""

from __future__ import annotations

import time
import traceback
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from bench.attacks.precomputed import UNCHANGED
from bench.attacks.registry import Unsupported, find_attack, user_code
from bench.evaluation.batching import BatchLimit, batch_limit, is_out_of_memory, release_cached_memory
from bench.evaluation.cost import Cost, seconds_since
from bench.evaluation.deployed import deployed_verdict
from bench.evaluation.devices import device_of
from bench.evaluation.view import attack_view
from bench.execution.pace import Advance, watch_of
from bench.execution.records import Block, Outcome
from bench.spec.cell import Cell
from bench.spec.threat import distances, in_box, target_labels
from bench.store.folder import CellResult
from bench.store.parts import CellRecord
from defenses.core.defense import Defense
from defenses.utils.errors import UserError
from defenses.utils.parameters import decode
from defenses.utils.text import clean

_LONGEST = 400  # characters of a message
_SAME = 1e-6  # tolerance of rounding to float32 and back


def execute(
    cell: Cell,
    defense: Defense,
    block: Block,
    num_classes: int,
    *,
    x_adv: Tensor | None = None,
    surrogate: Defense | None = None,
    advance: Advance | None = None,
) -> CellResult:
    """Run a cell; errors of the attack or the defense are recorded, not raised.

    Args:
        cell: the cell.
        defense: the loaded defense.
        block: its images.
        num_classes: K.
        x_adv: images of an earlier attack, float32 [B, C, H, W], to be judged again; None: attack.
        surrogate: the defense whose view is attacked, for a cell that has one; None: `defense`.
        advance: called now and then with the share of the cell that is done.

    Returns:
        The result; its line has the status "ok", "error" or "unsupported".

    Raises:
        UserError: bad input that concerns more than this cell.
    """
    line = cast("CellRecord", cell.columns())
    line.update({"status": "ok", "error": None, "identity": cell.identity()})
    try:
        target = target_labels(cell.threat, block.y, block.indices, num_classes, cell.seed)
        cost = Cost()
        if x_adv is None:
            x_adv, cost = attacked(cell, defense, block, target, num_classes, surrogate, advance)
        outcome = _judge(cell, defense, block, target, x_adv, cost)
    except Unsupported as reason:
        return CellResult({**line, "status": "unsupported", "error": _first_line(reason)})
    except (UserError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__}: {_first_line(error)}".rstrip(": ")
        failure = CellResult.failure(cell, message, traceback.format_exc())
        return replace(failure, out_of_memory=is_out_of_memory(error))
    line |= outcome.costs()
    if notes := _notes(outcome):
        line["notes"] = notes
    if problems := [*filter(None, outcome.problems)]:
        line["error"] = f"{len(problems)} of {len(outcome.problems)} images: {problems[0]}"
    return CellResult(line, outcome.records(), outcome.draws(), x_adv.numpy())


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's text; "" where there is none."""
    text = str(error).strip()
    return clean(text.splitlines()[0][:_LONGEST]) if text else ""


def _notes(outcome: Outcome) -> list[str]:
    limits = (("ran", outcome.cost.rows), ("was judged", outcome.deployed.cost.rows))
    notes = [f"{step} with {n} rows at once after running out of memory" for step, n in limits if n is not None]
    if outcome.cell.attack.is_precomputed and torch.allclose(outcome.x_adv, outcome.block.x, rtol=0, atol=_SAME):
        notes.append(UNCHANGED)
    return notes


def attacked(
    cell: Cell,
    defense: Defense,
    block: Block,
    target: Tensor | None,
    num_classes: int,
    surrogate: Defense | None = None,
    advance: Advance | None = None,
) -> tuple[Tensor, Cost]:
    """Run the attack of a cell; `execute` has the arguments.

    Args:
        cell: the cell.
        defense: the loaded defense.
        block: its images.
        target: target classes, int64 [B]; None: untargeted.
        num_classes: K.
        surrogate: the defense whose view is attacked, for a cell that has one; None: `defense`.
        advance: called now and then with the share of the cell that is done.

    Returns:
        Images float32 [B, C, H, W] on the CPU, and the cost of the attack.

    Raises:
        Unsupported: the defense lacks the gradient mode, or the attack cannot run.
    """
    view, label = cell.view, cell.defense.label
    if cell.surrogate is not None and surrogate is not None:
        defense, view, label = surrogate, cell.source_view, cell.surrogate.label
    if view.mode not in defense.gradients:
        raise Unsupported(f'{label} has no gradient mode "{view.gradient}"')
    with batch_limit(defense) as memory:
        while True:
            try:
                return _attempt(cell, defense, block, target, num_classes, memory, advance)
            except Exception as error:
                # The view cannot halve its batches further; a graph that the attack holds fills the memory.
                if not memory.ran_out(error, memory.asked):
                    raise
            release_cached_memory()


def _attempt(
    cell: Cell,
    defense: Defense,
    block: Block,
    target: Tensor | None,
    num_classes: int,
    memory: BatchLimit,
    advance: Advance | None,
) -> tuple[Tensor, Cost]:
    device = device_of(defense)
    params = decode(cell.attack.params)
    attack = find_attack(cell.attack.name, params)
    if user_code(cell.attack.name) and attack.version != cell.attack.version:
        raise UserError(f"the code of {cell.attack.label} changed during the run; repeat the command")
    # Null attacks use the same noise on all defenses.
    seed = cell.seed if cell.attack.is_null else cell.noise_seed("attack") % (1 << 32)
    x, y = block.x.to(device), block.y.to(device)
    attack.load()
    view_spec = cell.source_view if cell.surrogate else cell.view
    view_seed = cell.seed if view_spec.known else cell.noise_seed("view")
    settings: Any = {"memory": memory, "watch": advance and watch_of(cell, advance), "compute": cell.compute}
    with attack_view(defense, view_spec, seed=view_seed, **settings) as (view, meter):
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


def _judge(cell: Cell, defense: Defense, block: Block, target: Tensor | None, x_adv: Tensor, cost: Cost) -> Outcome:
    """Judge the images that an attack returned; in place of an image that cannot be judged the clean one is."""
    sizes = distances(block.x, x_adv)
    size = sizes[cell.threat.norm]
    problems = _problems(cell, x_adv, size)
    beyond = size > float(cell.threat.eps) + cell.threat.tolerance  # here a minimisation attack has failed
    clean = beyond | torch.tensor([bool(p) for p in problems])
    judged = torch.where(clean.view(-1, 1, 1, 1), block.x, x_adv)  # a copy, in the layout of data
    deployed = deployed_verdict(cell, defense, judged, block.y, block.indices)
    not_finite = "the defense returned logits that are not finite"
    problems = [p or ("" if f else not_finite) for p, f in zip(problems, deployed.finite.tolist(), strict=True)]
    return Outcome(cell, block, target, x_adv, sizes, beyond, problems, deployed, cost)


def _problems(cell: Cell, x_adv: Tensor, sizes: Tensor) -> list[str]:
    """Return per image why it cannot be judged, "" where it can; a minimisation attack may leave the ball."""
    limit = float(cell.threat.eps) + cell.threat.tolerance
    problems = []
    for finite, boxed, size in zip(torch.isfinite(x_adv.flatten(1)).all(1), in_box(x_adv), sizes.tolist(), strict=True):
        if not finite:
            problems.append("the attack returned values that are not finite")
        elif not boxed:
            problems.append("the attack left the box [0, 1]")
        elif size > limit and not cell.attack.minimisation:
            problems.append(f"the attack left the {cell.threat.norm} ball: {size:.6g} > {float(cell.threat.eps):.6g}")
        else:
            problems.append("")
    return problems
