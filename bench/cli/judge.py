"""`purebench judge`: judge precomputed adversarial images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.board.defense_entry import describe
from bench.board.labels import with_labels
from bench.board.precomputed import JudgeOptions, judge_board
from bench.cli import arguments as shared
from bench.cli.board_options import add_run_options, run_and_show
from bench.spec.aggregation import Aggregation
from bench.spec.cell import VerdictSpec
from bench.spec.threat import ThreatModel
from defenses.utils.errors import UserError
from defenses.utils.text import file_name

if TYPE_CHECKING:
    from bench.attacks.precomputed_files import PrecomputedImages


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    sub.add_argument("images", nargs="+", type=Path, help=".npz with x_adv, index and y (or .npy, .pt, .safetensors)")
    sub.add_argument("--defense", nargs="+", action="extend", required=True, help="names, or file.py:Class")
    shared.add_label(sub, several=True, name="--defense-label")
    shared.add_parameters(sub, "defense parameters")
    shared.add_stochastic(sub)
    sub.add_argument("--norm", default="Linf", help="Linf, L2, L1 or L0 (default: Linf)")
    sub.add_argument("--eps", help="radius, as 8/255")
    sub.add_argument("--targets", default="none", help="none, next or random (default: none)")
    sub.add_argument("--minimisation", action="store_true", help="images beyond eps count as failed, not as errors")
    sub.add_argument("--dataset", default="digits", help="of the clean images (default: digits)")
    shared.add_split(sub, "of the data set (default: test)")
    sub.add_argument("--indices", help="an index list, as first-1000: the images of files without index, in its order")
    sub.add_argument("--clean", type=Path, help=".npz of the clean images: found in the data set by their pixels")
    shared.add_labels(sub, "--label", "of the images in tables, one for each file")
    sub.add_argument("--draws", type=shared.positive, default=65, help="held-out draws (default: 65)")
    sub.add_argument("--selection", type=shared.positive, default=16, help="draws to choose the worst on (default: 16)")
    sub.add_argument(
        "--k", type=shared.positive, help="draws of the majority and mean logit, the first ones (default: all)"
    )
    sub.add_argument("--sequential", type=float, metavar="ERROR", help="a majority of k > draws by a rule, as .01")
    sub.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    sub.add_argument("--batch", type=shared.positive, default=2048, help="images times draws at once (default: 2048)")
    sub.add_argument("--block", type=shared.positive, default=100, help="images per cell (default: 100)")
    shared.add_out(sub, "results folder (default: results/judge-<first label>)")
    shared.add_roots(sub)
    add_run_options(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if arguments.eps is None:
        raise UserError("eps is missing; give the radius of the ball, as --eps 8/255")
    threat = ThreatModel(arguments.norm, arguments.eps, arguments.targets, "given images")
    options = _options(arguments, threat)
    precomputed = _read_images(arguments, threat)
    name = f"judge-{file_name(precomputed[0].label)}"
    out = arguments.out or Path("results") / name
    with judge_board(precomputed, options, name, out) as board:
        return run_and_show(board, out, arguments)


def _options(arguments: argparse.Namespace, threat: ThreatModel) -> JudgeOptions:
    """Return the defenses, and how the images are judged."""
    if arguments.set and len(arguments.defense) > 1:
        raise UserError("--set is for one defense; judge the others apart")
    entries = with_labels([shared.board_entry(arguments, name) for name in arguments.defense], arguments.defense_label)
    return JudgeOptions(
        defenses=tuple(describe(e, arguments.dataset, **shared.roots_of(arguments)) for e in entries),
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


def _read_images(arguments: argparse.Namespace, threat: ThreatModel) -> list[PrecomputedImages]:
    """Read the images of all files, and label them."""
    from bench.attacks.precomputed_files import read_precomputed

    images = [part for path in arguments.images for part in read_precomputed(path, f"{threat.norm} {threat.eps}")]
    if arguments.label and len(arguments.label) != len(images):
        raise UserError(f"there are {len(images)} sets of images and {len(arguments.label)} labels; give one for each")
    labels = arguments.label or [part.label for part in images]
    return [replace(part, label=label) for part, label in zip(images, labels, strict=True)]
