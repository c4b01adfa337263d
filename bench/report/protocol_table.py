"""The table of protocols beside the full one: what was claimed, what each leaves here, and the difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.format import interval, percent, points
from bench.report.table import Table
from defenses.utils.names import portable

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    *("defense", "protocol", "claimed, of another network % [95%]", "their protocol % [95%]"),
    *("full protocol % [95%]", "null attack transfer % [95%]", "clean % [95%]"),
    *("points that are the attack's weakness [95%]", "claimed on", "status"),
)
_NOTES = (
    "their protocol: the worst case over clean images and the attacks of the preset; full protocol: that of standard, "
    "on a board without it that of its own attacks, with the null attack transfer; same networks, images and held-out "
    "draws, and means over these, whatever a paper's verdict is",
    "points: their protocol less the full one, paired on the same images (Bonett and Price); the rest of the distance "
    "to a claim is that of another network, data set and radius",
    "[ ]: Wilson 95% over images; none where a claim does not tell its number of images; no claim: none on record "
    "has a mean accuracy at the radius of the protocol; secondary: read in a later work, not in the paper itself",
)


def protocol_table(frame: pd.DataFrame) -> Table:
    """Return the table of a frame of `bench.reproduction`.

    Args:
        frame: its rows, of one results folder.
    """
    settings = frame[["dataset", "norm", "eps"]].drop_duplicates()
    several = len(settings) > 1
    shared = "" if several or frame.empty else f": {_setting(frame.iloc[0])}"
    rows = tuple(_cells(row, several=several) for row in frame.to_dict("records"))
    return Table(f"Protocols beside the full one{shared}", _COLUMNS, rows, _NOTES, left=2, tail=2)


def _setting(row: Any) -> str:
    return f"{portable(row['dataset'])}, {row['norm']} {row['eps']}"


def _cells(row: Any, *, several: bool) -> tuple[str, ...]:
    where = f" ({_setting(row)})" if several else ""
    claimed = _share(row, "claimed") if row["claimed_low"] == row["claimed_low"] else percent(row["claimed"])
    known = f"; without {row['left_out']}, which knows the judged draw" if row["left_out"] else ""
    second = "secondary" if row["evidence"] == "secondary" else ""
    about = ", ".join(filter(None, (row["claimed_dataset"], row["claimed_threat"], row["claimed_network"], second)))
    return (
        *(f"{row['defense']}{where}", row["protocol"], claimed),
        *(_share(row, name) for name in ("own", "full", "null", "clean")),
        *(
            points(*(100 * row[f"weakness{end}"] for end in ("", "_low", "_high"))),
            about or "no claim",
            f"{row['status']}{known}",
        ),
    )


def _share(row: Any, name: str) -> str:
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"])
