"""`purebench judge`: what a defense makes of adversarial images that somebody else made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import Declare, key_values, positive
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.attacks.precomputed_files import PrecomputedImages
    from bench.board.precomputed import JudgeOptions
    from bench.spec.threat import ThreatModel


def add(declare: Declare) -> None:
    """Declare the command."""
    from bench.cli.board_options import run_arguments

    sub = declare("judge", _judge, "Judge adversarial images that somebody else made, and write the same records.")
    sub.add_argument("images", nargs="+", type=Path, help=".npz with x_adv, index and y (or .npy, .pt, .safetensors)")
    sub.add_argument("--defense", nargs="+", action="extend", required=True, help="names, or file.py:Class")
    sub.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="defense parameters")
    sub.add_argument("--stochastic", action="store_true", help="a module of your own is random")
    sub.add_argument("--norm", default="Linf", help="Linf, L2, L1 or L0 (default: Linf)")
    sub.add_argument("--eps", help="radius, as 8/255")
    sub.add_argument("--targets", default="none", help="none, next or random (default: none)")
    sub.add_argument("--minimisation", action="store_true", help="images beyond eps count as failed, not as errors")
    sub.add_argument("--dataset", default="digits", help="whose images they were (default: digits)")
    sub.add_argument("--split", default="test")
    sub.add_argument("--indices", help="an index list, as first-1000: what files without index hold, in its order")
    sub.add_argument("--clean", type=Path, help=".npz of the clean images: found in the data set by their pixels")
    sub.add_argument("--label", nargs="+", action="extend", default=[], help="one for each file")
    sub.add_argument("--draws", type=positive, default=65, help="held-out draws (default: 65)")
    sub.add_argument("--selection", type=positive, default=16, help="draws to choose the worst on (default: 16)")
    sub.add_argument("--k", type=positive, help="draws of the majority and mean logit, the first ones (default: all)")
    sub.add_argument("--sequential", type=float, metavar="ERROR", help="a majority of k > draws by a rule, as .01")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--batch", type=positive, default=2048, help="images times draws at once (default: 2048)")
    sub.add_argument("--block", type=positive, default=100, help="images per unit of work (default: 100)")
    sub.add_argument("--out", type=Path, help="results folder (default: results/judge-<first label>)")
    sub.add_argument("--weights-root", type=Path, help="look here first for <dataset>/<name>.safetensors")
    sub.add_argument("--data-root", type=Path, help="where data sets lie (default: $PUREBENCH_DATA)")
    run_arguments(sub)


def _judge(arguments: argparse.Namespace) -> int:
    from bench.board.precomputed import judge_board, unchanged
    from bench.cli.board_options import run_and_show
    from bench.spec.threat import ThreatModel

    if arguments.eps is None:
        raise UserError("eps is missing; give the radius of the ball, as --eps 8/255")
    threat = ThreatModel(arguments.norm, arguments.eps, arguments.targets, "given images")
    request = _request(arguments, threat)
    given = _given(arguments, threat)
    name = "judge-" + "".join(c if c.isalnum() or c in "-_." else "_" for c in given[0].label)
    out = arguments.out or Path("results") / name
    with judge_board(given, request, name, out) as board:
        for note in dict.fromkeys(note for g in given for note in g.notes):
            print(f"note: {note}", file=sys.stderr)
        code = run_and_show(board, out, arguments)
    for label in unchanged(out, given):
        print(f"note: {label}: every image is the clean one, so nothing was attacked", file=sys.stderr)
    return code


def _request(arguments: argparse.Namespace, threat: ThreatModel) -> JudgeOptions:
    from bench.board.defense_entry import describe
    from bench.board.precomputed import JudgeOptions
    from bench.spec.aggregation import Aggregation
    from bench.spec.cell import VerdictSpec

    if arguments.set and len(arguments.defense) > 1:
        raise UserError("--set is for one defense; judge the others apart")
    extra: dict[str, Any] = {"params": key_values(arguments.set)} if arguments.set else {}
    extra |= {"stochastic": True} if arguments.stochastic else {}
    entries = [{"name": name, **extra} for name in arguments.defense]
    roots = {"weights_root": arguments.weights_root, "data_root": arguments.data_root}
    return JudgeOptions(
        defenses=tuple(describe(e, arguments.dataset, **roots) for e in entries),
        threat=threat,
        dataset=arguments.dataset,
        split=arguments.split,
        indices=arguments.indices,
        clean=arguments.clean,
        verdict=VerdictSpec(arguments.draws, arguments.selection, arguments.batch),
        protocols=Aggregation(k=arguments.k, sequential=arguments.sequential),
        seed=arguments.seed,
        block=arguments.block,
        minimisation=arguments.minimisation,
        data_root=arguments.data_root,
    )


def _given(arguments: argparse.Namespace, threat: ThreatModel) -> list[PrecomputedImages]:
    """The images of all files, labelled."""
    from dataclasses import replace

    from bench.attacks.precomputed_files import read_given

    found = [given for path in arguments.images for given in read_given(path, f"{threat.norm} {threat.eps}")]
    if arguments.label and len(arguments.label) != len(found):
        raise UserError(f"there are {len(found)} sets of images and {len(arguments.label)} labels; give one for each")
    labels = arguments.label or [given.label for given in found]
    return [replace(given, label=label) for given, label in zip(found, labels, strict=True)]
