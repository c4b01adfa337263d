"""Table of `purebench detect`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.report.format import percent
from bench.report.table import Table

if TYPE_CHECKING:
    import pandas as pd

_SHARES = {  # heading: column of the frame
    "clean: right and accepted % [95%]": "right_accepted",
    "clean: refused % [95%]": "clean_refused",
    "attacked: right or refused % [95%]": "right_or_refused",
    "TPR at 1% FPR % [95%]": "tpr_at_1",
    "TPR at 5% FPR % [95%]": "tpr_at_5",
}
_AUROC = "AUROC [95%]"
_ORDER = (*list(_SHARES)[:3], _AUROC, *list(_SHARES)[3:])
_NOTES = (
    "right or refused: of the deployed defense at its own threshold; under all attacks together those of the attack "
    "that is chosen for each image on selection draws",
    "fooled: images that the classifier has right before the attack and wrong after it; AUROC and TPR are of these "
    "against the clean images of the board, at thresholds on these",
    "[ ]: Wilson 95% over images; of AUROC a bootstrap over images",
)


def detection_table(frame: pd.DataFrame) -> Table:
    """Return the rows of `bench.analysis.detection.detection` as a table in percent."""
    rows: list[Any] = list(frame.itertuples())
    setting = [name for name in ("norm", "eps", "targets", "training_seed") if frame[name].nunique() > 1]
    cells = tuple(
        (
            *(str(getattr(r, name)) for name in setting),
            *(r.defense, r.attack, r.view, str(r.n_images), "–" if math.isnan(r.n_fooled) else f"{r.n_fooled:.0f}"),
            *(_auroc(r) if heading == _AUROC else _share(r, _SHARES[heading]) for heading in _ORDER),
        )
        for r in rows
    )
    first = rows[0]
    shared = [first.dataset, first.split, *(f"{n} {getattr(first, n)}" for n in ("norm", "eps") if n not in setting)]
    header = (*setting, "defense", "attack", "attack view", "images", "fooled", *_ORDER)
    return Table(f"Detectors: {', '.join(map(str, shared))}", header, cells, _NOTES, left=len(setting) + 3)


def _share(row: object, name: str) -> str:
    """Return a share with its interval, in percent."""
    value, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
    return percent(value) if math.isnan(value) else f"{percent(value)} [{percent(low)}, {percent(high)}]"


def _auroc(row: Any) -> str:
    """Return the AUROC with its interval, where there is one."""
    if math.isnan(row.auroc):
        return "–"
    interval = "" if math.isnan(row.auroc_low) else f" [{row.auroc_low:.3f}, {row.auroc_high:.3f}]"
    return f"{row.auroc:.3f}{interval}"
