"""`purebench audit`: check whether the evaluation of a defense can be trusted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.audit.budgets import budget
from bench.audit.targets import AuditOptions, select, stored_candidates
from bench.board.defense_entry import candidate, describe
from bench.board.load import find_board, load_board
from bench.board.results_folder import default_folder
from bench.cli import arguments as shared
from bench.cli.terminal import fitted_lines
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError
from defenses.utils.names import is_plugin, is_zoo
from defenses.utils.text import file_name
from defenses.zoo.cards import list_models

if TYPE_CHECKING:
    from bench.board.defense_entry import Candidate


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("target", help="a board, a results folder, or a defense, as adp or file.py:Class")
    shared.add_labels(sub, "--defense", "of a board or folder, only these")
    sub.add_argument("--budget", default="quick", help="quick or full (default: quick)")
    sub.add_argument("--norm", help="Linf, L2 or L1 (default: the first threat of the board; else Linf)")
    sub.add_argument("--eps", help="radius, as 8/255 (default: the first threat of the board)")
    sub.add_argument("--dataset", help="for a defense (default: digits)")
    shared.add_split(sub, "for a defense (default: test)", default=None)
    sub.add_argument("--indices", help="an index list, as first-1000, whose first images are taken")
    shared.add_parameters(sub, "defense parameters")
    shared.add_label(sub, before="a defense by name: ")
    shared.add_stochastic(sub)
    sub.add_argument("--force", action="store_true", help="audit a model that returns probabilities, too")
    sub.add_argument("--transfer-from", metavar="DEFENSE", help="surrogate of transfer attacks (default: undefended)")
    sub.add_argument("--seed", type=int, help="(default: the board's; else 0)")
    shared.add_out(sub, "results folder; the audit goes into audit/ there")
    shared.add_device(sub)
    shared.add_roots(sub)
    shared.add_quiet(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    size = budget(arguments.budget)
    options, candidates, threads = _target(arguments)
    selection = select(candidates, arguments.defense)

    import torch

    from bench.audit.prepare import prepare
    from bench.audit.run import audit, write
    from bench.evaluation.isolation import preserve_global_state

    torch.set_num_threads(threads)
    statuses, stderr = set[str](), sys.stderr  # the output of models is bounded, progress is not
    for number, member in enumerate(selection, 1):
        which = f"[{number}/{len(selection)}] {member.label}" if len(selection) > 1 else member.label

        def report(text: str, which: str = which) -> None:
            if not arguments.quiet:
                print(f"{which}: {text}", file=stderr, flush=True)

        with preserve_global_state():
            subject = prepare(
                member,
                options,
                size,
                shared.roots_of(arguments),
                device=arguments.device,
                force=arguments.force,
                surrogate=arguments.transfer_from,
                report=report,
            )
            finished = audit(subject, arguments.budget)
        write(options.out, finished)
        print(fitted_lines(str(finished)))
        statuses.add(finished.status)
    return 1 if "fail" in statuses else shared.NOT_MEASURABLE if "not measurable" in statuses else 0


def _target(arguments: argparse.Namespace) -> tuple[AuditOptions, list[Candidate], int]:
    """Return (options, defenses, threads) of the target."""
    folder = Path(arguments.target)
    if (folder / "plan.jsonl").is_file():
        return _results_target(arguments, folder)
    if _is_board(arguments.target):
        return _board_target(arguments)
    return _defense_target(arguments)


def _is_board(target: str) -> bool:
    """Return True if the target is a board, False if it is a defense.

    Raises:
        UserError: it is neither.
    """
    if target in list_models() or is_plugin(target) or is_zoo(target):
        return False
    try:
        find_board(target)
    except UserError:
        raise UserError(f'"{target}" is no board, no results folder and no defense; see purebench ls') from None
    return True


def _results_target(arguments: argparse.Namespace, folder: Path) -> tuple[AuditOptions, list[Candidate], int]:
    shared.refuse_with("results folder", arguments, "dataset", "split", "set", "label", "stochastic")
    line, candidates = stored_candidates(folder, shared.roots_of(arguments))
    defaults = {k: v for k, v in line.items() if k in ("dataset", "split", "indices", "norm", "eps", "seed")}
    return _options(arguments, defaults, folder), candidates, 1


def _board_target(arguments: argparse.Namespace) -> tuple[AuditOptions, list[Candidate], int]:
    shared.refuse_with("board", arguments, "dataset", "split", "set", "label", "stochastic")
    roots = shared.roots_of(arguments)
    board = load_board(arguments.target, **roots)
    threat = board.threats[0]
    defaults = {"dataset": board.dataset, "split": board.split, "indices": board.indices, "seed": board.seed}
    defaults |= {"norm": threat.norm, "eps": str(threat.eps)}
    candidates = [candidate(d, board.dataset, roots) for d in board.defenses]
    return _options(arguments, defaults, default_folder(board)), candidates, board.threads


def _defense_target(arguments: argparse.Namespace) -> tuple[AuditOptions, list[Candidate], int]:
    if arguments.eps is None:
        raise UserError("eps is missing; give the radius at which the defense is judged, as --eps 8/255")
    if arguments.defense:
        raise UserError(f"--defense picks from a board; {arguments.target} is one defense already, leave it out")
    dataset, roots = arguments.dataset or "digits", shared.roots_of(arguments)
    reference = describe(shared.board_entry(arguments, arguments.target), dataset, **roots)
    defaults = {"dataset": dataset, "split": arguments.split or "test", "indices": "all", "norm": "Linf", "seed": 0}
    options = _options(arguments, defaults, Path("results") / f"audit-{file_name(reference.label)}")
    return options, [candidate(reference, dataset, roots)], 1


def _options(arguments: argparse.Namespace, defaults: dict[str, Any], out: Path) -> AuditOptions:
    """Return the options of the audit: those of the command line, and else those of the target."""
    if arguments.norm is not None and arguments.eps is None:
        raise UserError("--norm without --eps: a radius means nothing in another norm; give both")
    changed = {k: value for k in ("norm", "eps", "indices", "seed") if (value := getattr(arguments, k)) is not None}
    values = {**defaults, **changed}
    return AuditOptions(
        dataset=str(values["dataset"]),
        split=str(values["split"]),
        indices=str(values["indices"]),
        threat=ThreatModel(values["norm"], values["eps"]),
        seed=shared.check_seed(int(str(values["seed"]))),
        out=arguments.out or out,
    )
