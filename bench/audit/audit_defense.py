"""Audit a model that Python code gives."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from bench.audit.budgets import budget as budget_named
from bench.audit.findings import Audit
from bench.audit.prepare import prepare
from bench.audit.run import audit, write
from bench.audit.targets import AuditOptions
from bench.board.defense_entry import Candidate
from bench.board.evaluation_options import OptionKeywords, options_of
from bench.board.given_model import given_data, given_model
from bench.evaluation.devices import device_of
from bench.evaluation.isolation import preserve_global_state
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError
from defenses.utils.parameters import canonical


def audit_defense(
    model: nn.Module | str,
    dataset: Any = "digits",
    *,
    eps: str | float | None = None,
    norm: str = "Linf",
    budget: str = "quick",
    indices: str = "all",
    transfer_from: str | None = None,
    force: bool = False,
    **options: Unpack[OptionKeywords],
) -> Audit:
    """Check whether the attacks on a model are fit to judge it, as `purebench audit`.

    Args:
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model`.
        dataset: name or .npz path, or (x, y) of tensors or NumPy arrays.
        eps: radius on pixels in [0, 1], as "8/255".
        norm: "Linf", "L2" or "L1".
        budget: "quick" or "full".
        indices: index list, whose first images are taken.
        transfer_from: name of the surrogate of transfer attacks; None: "undefended", where the data set has one.
        force: audit a model that returns probabilities, too.
        **options: split, seed, stochastic, out, data_root, device, name and quiet of
            `bench.EvaluationOptions`. The audit goes into audit/ of the folder `out`.

    Returns:
        The findings, with `status` ("pass", "fail" or "not measurable") and the names of the `failed` checks; printed,
        they are a line for each check.

    Raises:
        UserError: bad input, or a model that cannot be attacked.
    """
    if eps is None:
        raise UserError('eps is missing; give it as eps="8/255"')
    size, threat = budget_named(budget), ThreatModel.of(norm, eps)
    evaluation = options_of(audit_defense, options, without=("batch_size", "draws", "selection", "compute"))
    dataset = given_data(dataset, model)

    def report(text: str) -> None:
        if not evaluation.quiet:
            print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as scratch, preserve_global_state():
        defense, reference = given_model(model, dataset, evaluation, norm=norm)
        member = Candidate(reference.title, canonical(reference.fingerprint), lambda: defense)
        folder = evaluation.out or Path(scratch)
        target = AuditOptions(dataset, evaluation.split, indices, threat, evaluation.seed, folder)
        roots: dict[str, Path | None] = {"weights_root": None, "data_root": evaluation.data_root}
        how: dict[str, Any] = {"device": str(device_of(defense)), "force": force, "surrogate": transfer_from}
        finished = audit(prepare(member, target, size, roots, report=report, **how), budget)
        if evaluation.out is not None:
            write(evaluation.out, finished)
    return finished
