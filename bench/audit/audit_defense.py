"""Audit a model that Python code gives."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from bench.audit.budgets import budget as budget_named
from bench.audit.findings import Audit
from bench.audit.prepare import prepare
from bench.audit.run import audit, write
from bench.audit.targets import AuditOptions
from bench.board.defense_entry import Candidate
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
    split: str = "test",
    indices: str = "all",
    transfer_from: str | None = None,
    seed: int = 0,
    force: bool = False,
    stochastic: bool | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: Any = None,
    name: str | None = None,
    quiet: bool = True,
) -> Audit:
    """Check whether the attacks on a model are fit to judge it, as `purebench audit`.

    Args:
        model: a module from images float32 [B, C, H, W] in [0, 1] to logits [B, K], in evaluation mode; a `Defense`;
            or a name for `load_model`.
        dataset: name or .npz path, or (x, y) of tensors or NumPy arrays.
        eps: radius on pixels in [0, 1], as "8/255".
        norm: "Linf", "L2" or "L1".
        budget: "quick" or "full".
        split: split of the data set.
        indices: index list, whose first images are taken.
        transfer_from: name of the surrogate of transfer attacks; None: "undefended", where the data set has one.
        seed: seed of attacks and verdicts.
        force: audit a model that returns probabilities, too.
        stochastic: True if the outputs of a module that is no `Defense` are random; None: try.
        out: results folder; the audit goes into audit/ there. None: it is not kept.
        data_root: where data sets lie.
        device: device to which the model is moved; None: it stays where it is.
        name: name of the model in the audit; None: its name in the registry, or of its class.
        quiet: show no progress.

    Returns:
        The findings, with `status` ("pass", "fail" or "not measurable") and the names of the `failed` checks; printed,
        they are a line for each check.

    Raises:
        UserError: bad input, or a model that cannot be attacked.
    """
    if eps is None:
        raise UserError('eps is missing; give it as eps="8/255"')
    size, threat = budget_named(budget), ThreatModel(norm, eps)  # type: ignore[arg-type]
    root, dataset = None if data_root is None else Path(data_root), given_data(dataset, model)

    def report(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    options: dict[str, Any] = {"norm": norm, "split": split, "stochastic": stochastic, "name": name, "data_root": root}
    with tempfile.TemporaryDirectory() as scratch, preserve_global_state():
        defense, reference = given_model(model, dataset, device=device, resumable=out is not None, **options)
        member = Candidate(reference.title, canonical(reference.fingerprint), lambda: defense)
        target = AuditOptions(dataset, split, indices, threat, seed, Path(scratch) if out is None else Path(out))
        roots: dict[str, Path | None] = {"weights_root": None, "data_root": root}
        how: dict[str, Any] = {"device": str(device_of(defense)), "force": force, "surrogate": transfer_from}
        finished = audit(prepare(member, target, size, roots, report=report, **how), budget)
        if out is not None:
            write(Path(out), finished)
    return finished
