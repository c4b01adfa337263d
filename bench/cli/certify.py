"""`purebench certify`: measure how exact the exact gradients of defenses are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.board.defense_entry import candidate, describe
from bench.cli import arguments as shared
from bench.cli.board_options import add_board, names_board, results_folder, selected_board
from bench.evaluation.certificates import stored
from bench.evaluation.certificates.certificate import CertificateRecord, state_of
from bench.evaluation.certificates.text import GradientCertificate
from bench.execution.options import Options
from bench.spec.cell import digest
from defenses.data.dataset import load_dataset

if TYPE_CHECKING:
    from bench.board.board import Board


def add(sub: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_board(sub)
    sub.add_argument("--dataset", dest="data", default="digits", help="for a defense by name (default: digits)")
    shared.add_parameters(sub, "parameters of a defense by name")
    shared.add_label(sub, before="a defense by name: ")
    shared.add_stochastic(sub)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    target = str(arguments.board)
    if names_board(target):
        shared.refuse_with("board", arguments, "set", "label", "stochastic")
        certificates = _certify_board(selected_board(arguments), arguments)
    else:
        certificates = dict([_certify_defense(target, arguments)])
    for title, certificate in certificates.items():
        print(GradientCertificate(title, certificate))
    states = {state_of(certificate) for certificate in certificates.values()}
    return 1 if "failed" in states else shared.NOT_MEASURABLE if "not measurable" in states else 0


def _certify_defense(name: str, arguments: argparse.Namespace) -> tuple[str, CertificateRecord]:
    """Return (title, certificate) of a defense by name."""
    from bench.evaluation.isolation import preserve_global_state
    from bench.evaluation.model_checks import check_model

    roots = shared.roots_of(arguments)
    with preserve_global_state():
        reference = describe(shared.board_entry(arguments, name), arguments.data, **roots)
        defense = candidate(reference, arguments.data, roots).load()
        data = load_dataset(arguments.data, root=arguments.data_root)
        x = data.first(8)
        check_model(defense, x, data.num_classes, reference.title, probabilities=True)
        return reference.title, stored.certificate_of(defense, x, reference.title)


def _certify_board(board: Board, arguments: argparse.Namespace) -> dict[str, CertificateRecord]:
    """Return certificates of the defenses that the board attacks through exact gradients; measure missing ones."""
    from bench.execution.cell_runner import CellRunner, one_per_defense
    from bench.execution.sources import Sources

    cells, folder = board.cells(), results_folder(arguments, board)
    runner = CellRunner(board.images, Options(data_root=arguments.data_root, weights_root=arguments.weights_root))
    certificates: dict[str, CertificateRecord] = {}
    missing: Mapping[str, str] = stored.missing(folder, cells, holds=Sources().certificate_holds)
    for cell in one_per_defense(cells):
        title = cell.defense.title
        if title in missing:
            runner.check(cell)
            certificate = certificates[title] = runner.certify(cell)
            if (folder / "plan.jsonl").is_file():
                stored.add(folder, {missing[title]: certificate})
        elif (earlier := stored.read(folder).get(digest(cell.defense.fingerprint))) is not None:
            certificates[title] = earlier
    return certificates
