"""`purebench certify`: measure how exact the exact gradients of defenses are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import Declare, key_values, refuse_with
from bench.cli.board_options import board_arguments, board_of, folder_of, names_board

if TYPE_CHECKING:
    from bench.board.board import Board


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare(
        "certify",
        _certify,
        "Measure the gradient certificate of a defense, or of those of a board, whose results folder keeps them; "
        "exits with 1 if one fails.",
    )
    board_arguments(sub)
    sub.add_argument("--dataset", dest="data", default="digits", help="for a defense by name (default: digits)")
    sub.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters of a defense by name")
    sub.add_argument("--stochastic", action="store_true", help="a module of your own is random")


def _certify(arguments: argparse.Namespace) -> int:
    given = str(arguments.board)
    if names_board(given):
        refuse_with("board", arguments, "set", "stochastic")
        found = _of_board(board_of(arguments), arguments)
    else:
        found = {given: _of_name(given, arguments)}
    for title, certificate in found.items():
        _show(title, certificate)
    return 0 if all(c["passed"] for c in found.values()) else 1


def _of_name(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from bench.board.defense_entry import candidate, describe
    from bench.evaluation.certificates.stored import certificate_of
    from bench.evaluation.isolation import preserve_global_state
    from bench.evaluation.model_checks import check_model
    from defenses.data.dataset import load_dataset

    entry: dict[str, Any] = {"name": name, "params": key_values(arguments.set)}
    roots = {"weights_root": arguments.weights_root, "data_root": arguments.data_root}
    with preserve_global_state():
        reference = describe(entry | ({"stochastic": True} if arguments.stochastic else {}), arguments.data, **roots)
        defense = candidate(reference, arguments.data, roots).load()
        data = load_dataset(arguments.data, root=arguments.data_root)
        check_model(defense, data.x[:8], data.num_classes, name, probabilities=True)
        return certificate_of(defense, data.x[:8], name)


def _of_board(board: Board, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Certificates of the defenses that the board attacks through exact gradients; measured where they are missing."""
    from bench.evaluation.certificates.stored import add as store
    from bench.evaluation.certificates.stored import missing, read
    from bench.execution.cell_runner import CellRunner, one_per_defense
    from bench.execution.options import Options
    from bench.spec.cell import digest

    cells, folder = board.cells(), folder_of(arguments, board.name)
    workshop = CellRunner(board, Options(data_root=arguments.data_root, weights_root=arguments.weights_root))
    found: dict[str, dict[str, Any]] = {}
    lacking: Mapping[str, str] = missing(folder, cells)
    for cell in one_per_defense(cells):
        title = cell.defense.title
        if title in lacking:
            workshop.check(cell)
            certificate = found[title] = workshop.certify(cell)
            if (folder / "plan.jsonl").is_file():
                store(folder, {lacking[title]: certificate})
        elif (known := read(folder).get(digest(cell.defense.fingerprint))) is not None:
            found[title] = known
    return found


def _show(title: str, certificate: Mapping[str, Any]) -> None:
    verdict = "passed" if certificate["passed"] else "FAILED"
    steps = f", {certificate['steps']} steps" if certificate.get("steps") is not None else ""
    on = f" on {certificate['images']} images{steps} in float64" if "images" in certificate else ""
    text = certificate.get("note") or certificate.get("error")
    print(f"{title}: {verdict}{on}{f': {text}' if text else ''}")
    for check in certificate.get("checks", ()):
        sign = ">=" if check["least"] else "<="
        note = f" ({check['note']})" if check["note"] else ""
        state = "ok  " if check["passed"] else "FAIL"
        print(f"  {state} {check['name']}: {check['value']:.3g} {sign} {check['limit']:g}{note}")
