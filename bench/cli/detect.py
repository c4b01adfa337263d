"""`purebench detect`: how well detectors tell adversarial images from clean ones."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.arguments import Declare

if TYPE_CHECKING:
    import pandas as pd

    from bench.report.table import Table

_SHARES = {
    "clean: right and accepted % [95%]": "right_accepted",
    "clean: refused % [95%]": "clean_refused",
    "attacked: right or refused % [95%]": "right_or_refused",
    "TPR at 1% FPR % [95%]": "tpr_at_1",
    "TPR at 5% FPR % [95%]": "tpr_at_5",
}
_NOTES = (
    "right or refused: of the deployed defense at its own threshold; under all attacks together an image's least",
    "fooled: images that the classifier has right before the attack and wrong after it; AUROC and TPR are of these "
    "against the clean images of the board, at thresholds on these",
    "[ ]: Wilson 95% over images; of AUROC a bootstrap over images",
)


def add(declare: Declare) -> None:
    """Declare the command."""
    sub = declare("detect", _detect, "Print AUROC, true positive rates and accuracy with rejection of detectors.")
    sub.add_argument("results", type=Path)
    sub.add_argument("--format", choices=("text", "markdown", "csv"), default="text")


def _detect(arguments: argparse.Namespace) -> int:
    from bench.analysis.detection import detection
    from bench.report.plain import to_csv, to_markdown, to_text

    frame = detection(arguments.results)
    if arguments.format == "csv":
        print(to_csv(frame), end="")
        return 0
    table = _table(frame)
    print(to_markdown(table) if arguments.format == "markdown" else to_text(table), end="")
    return 0


def _table(frame: pd.DataFrame) -> Table:
    from bench.report.table import Table

    rows: list[Any] = list(frame.itertuples())
    setting = [name for name in ("norm", "eps", "targets", "training_seed") if frame[name].nunique() > 1]
    columns = {"AUROC [95%]": _auroc, **{text: _share(name) for text, name in _SHARES.items()}}
    order = [*list(_SHARES)[:3], "AUROC [95%]", *list(_SHARES)[3:]]
    cells = tuple(
        (
            *(str(getattr(r, name)) for name in setting),
            *(r.defense, r.attack, r.view, str(r.n_images), "–" if math.isnan(r.n_fooled) else f"{r.n_fooled:.0f}"),
            *(columns[name](r) for name in order),
        )
        for r in rows
    )
    first = rows[0]
    shared = [first.dataset, first.split, *(f"{n} {getattr(first, n)}" for n in ("norm", "eps") if n not in setting)]
    header = (*setting, "defense", "attack", "attack view", "images", "fooled", *order)
    return Table(f"Detectors: {', '.join(map(str, shared))}", header, cells, _NOTES, left=len(setting) + 3)


def _share(name: str) -> Any:
    def shown(row: Any) -> str:
        from bench.report.tables import percent

        value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
        return percent(value) if math.isnan(value) else f"{percent(value)} [{percent(low)}, {percent(high)}]"

    return shown


def _auroc(row: Any) -> str:
    if math.isnan(row.auroc):
        return "–"
    interval = "" if math.isnan(row.auroc_low) else f" [{row.auroc_low:.3f}, {row.auroc_high:.3f}]"
    return f"{row.auroc:.3f}{interval}"
