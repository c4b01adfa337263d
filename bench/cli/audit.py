"""`purebench audit`: can the numbers of a defense be trusted?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.arguments import Declare, key_values, refuse_with
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.audit.targets import AuditOptions
    from bench.board.defense_entry import Candidate


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("audit", _audit, "Check whether the attacks on a defense are fit to judge it; exits with 1 if not.")
    sub.add_argument("target", help="a board, a results folder, or a defense, as adp or file.py:Class")
    sub.add_argument("--defense", nargs="+", action="extend", default=[], help="of a board or folder, only these")
    sub.add_argument("--budget", default="quick", help="quick or full (default: quick)")
    sub.add_argument("--norm", help="Linf, L2 or L1 (default: the first threat of the board; else Linf)")
    sub.add_argument("--eps", help="radius, as 8/255 (default: the first threat of the board)")
    sub.add_argument("--dataset", help="for a defense (default: digits)")
    sub.add_argument("--split", help="for a defense (default: test)")
    sub.add_argument("--indices", help="an index list, as first-1000: the first images of it are taken")
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="defense parameters")
    sub.add_argument("--stochastic", action="store_true", help="a module of your own is random")
    sub.add_argument("--force", action="store_true", help="audit a model that returns probabilities, too")
    sub.add_argument("--transfer-from", metavar="DEFENSE", help="whose adversarial images are tried (undefended)")
    sub.add_argument("--seed", type=int, help="(default: the board's; else 0)")
    sub.add_argument("--out", type=Path, help="results folder; the audit goes into audit/ there")
    sub.add_argument("--device", default="cpu", help="where models run, as cuda:0 (default: cpu)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    sub.add_argument("--quiet", action="store_true", help="no progress")


def _audit(arguments: argparse.Namespace) -> int:
    from bench.audit.budgets import budget
    from bench.audit.targets import chosen, subject

    size = budget(arguments.budget)
    setting, candidates, threads = _asked(arguments)
    picked = chosen(candidates, arguments.defense)

    import torch

    from bench.audit.pages import as_text
    from bench.audit.run import audit, write
    from bench.evaluation.isolation import preserve_global_state

    torch.set_num_threads(threads)
    failed, stderr = False, sys.stderr  # what a model prints is bounded, progress is not
    for one in picked:

        def report(text: str, label: str = one.label) -> None:
            if not arguments.quiet:
                print(f"{label}: {text}", file=stderr, flush=True)

        with preserve_global_state():
            looked_at = subject(
                one,
                setting,
                size,
                device=arguments.device,
                data_root=arguments.data_root,
                weights_root=arguments.weights_root,
                force=arguments.force,
                other=arguments.transfer_from,
                report=report,
            )
            made = audit(looked_at, arguments.budget)
        write(setting.out, made)
        print(as_text(made))
        failed |= bool(made.failed)
    return 1 if failed else 0


def _asked(arguments: argparse.Namespace) -> tuple[AuditOptions, list[Candidate], int]:
    """(on what, which defenses, threads)."""
    target = Path(arguments.target)
    if (target / "plan.jsonl").is_file():
        return _of_results(arguments, target)
    if _is_board(arguments.target):
        return _of_board(arguments)
    return _of_defense(arguments)


def _is_board(target: str) -> bool:
    from bench.board.load import find_board
    from defenses.utils.names import is_plugin, is_zoo
    from defenses.zoo.cards import list_models

    if target in list_models() or is_plugin(target) or is_zoo(target):
        return False
    try:
        find_board(target)
    except UserError:
        raise UserError(f'"{target}" is no board, no results folder and no defense; see purebench ls') from None
    return True


def _of_results(arguments: argparse.Namespace, folder: Path) -> tuple[AuditOptions, list[Candidate], int]:
    from bench.audit.targets import stored

    refuse_with("results folder", arguments, "dataset", "split", "set", "stochastic")
    line, candidates = stored(folder, _roots(arguments))
    said = {key: line[key] for key in ("dataset", "split", "indices", "norm", "eps", "seed")}
    return _setting(arguments, said, folder), candidates, 1


def _of_board(arguments: argparse.Namespace) -> tuple[AuditOptions, list[Candidate], int]:
    from bench.board.defense_entry import candidate
    from bench.board.load import load_board

    refuse_with("board", arguments, "dataset", "split", "set", "stochastic")
    roots = _roots(arguments)
    board = load_board(arguments.target, **roots)
    threat = board.threats[0]
    said = {"dataset": board.dataset, "split": board.split, "indices": board.indices, "seed": board.seed}
    setting = _setting(arguments, said | {"norm": threat.norm, "eps": str(threat.eps)}, Path("results") / board.name)
    return setting, [candidate(d, board.dataset, roots) for d in board.defenses], board.threads


def _of_defense(arguments: argparse.Namespace) -> tuple[AuditOptions, list[Candidate], int]:
    from bench.board.defense_entry import candidate, describe

    if arguments.eps is None:
        raise UserError("eps is missing; give the radius at which the defense is judged, as --eps 8/255")
    if arguments.defense:
        raise UserError(f"--defense picks from a board; {arguments.target} is one defense already, leave it out")
    dataset = arguments.dataset or "digits"
    entry = {"name": arguments.target} | ({"params": key_values(arguments.set)} if arguments.set else {})
    reference = describe(entry | ({"stochastic": True} if arguments.stochastic else {}), dataset,
                         **_roots(arguments))  # fmt: skip
    said = {"dataset": dataset, "split": arguments.split or "test", "indices": "all", "norm": "Linf", "seed": 0}
    name = "audit-" + "".join(c if c.isalnum() or c in "-_." else "_" for c in reference.label)
    setting = _setting(arguments, said | {"eps": arguments.eps}, Path("results") / name)
    return setting, [candidate(reference, dataset, _roots(arguments))], 1


def _roots(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """Where weights and data lie."""
    return {"weights_root": arguments.weights_root, "data_root": arguments.data_root}


def _setting(arguments: argparse.Namespace, said: dict[str, object], out: Path) -> AuditOptions:
    from bench.audit.targets import AuditOptions
    from bench.spec.threat import ThreatModel

    if arguments.norm is not None and arguments.eps is None:
        raise UserError("--norm without --eps: a radius means nothing in another norm; give both")
    given = {key: value for key in ("norm", "eps", "indices", "seed") if (value := getattr(arguments, key)) is not None}
    said = {**said, **given}
    threat = ThreatModel(said["norm"], said["eps"])  # type: ignore[arg-type]
    seed = int(str(said["seed"]))
    if seed < 0:
        raise UserError(f"the seed {seed} is negative; take 0, say")
    return AuditOptions(
        dataset=str(said["dataset"]),
        split=str(said["split"]),
        indices=str(said["indices"]),
        threat=threat,
        seed=seed,
        out=arguments.out or out,
    )
