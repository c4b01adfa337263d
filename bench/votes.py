"""What an image's draws say together, counted straight from Arrow columns: a full board has millions of draws."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bench.stats import majority, mean_logit

if TYPE_CHECKING:
    import pandas as pd

_IMAGES = 4096  # per pass (memory)


def _keys(table: Any, position: dict[str, int]) -> npt.NDArray[np.int64]:
    """One number per row that stands for (cell, index)."""
    import pyarrow as pa

    encoded = table["cell"].cast(pa.string()).combine_chunks().dictionary_encode()
    codes = np.array([position.setdefault(c, len(position)) for c in encoded.dictionary.to_pylist()], np.int64)
    cells = codes[encoded.indices.to_numpy(zero_copy_only=False)] if len(codes) else np.zeros(0, np.int64)
    out: npt.NDArray[np.int64] = (cells << 32) + table["index"].to_numpy().astype(np.int64)
    return out


def _logits(draws: Any) -> npt.NDArray[np.float16] | None:
    """[rows, K]; None when not all logits of a draw are stored."""
    if "logits" not in draws.column_names or "classes" in draws.column_names or draws["logits"].null_count:
        return None
    flat = draws["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if not len(draws) or len(flat) % len(draws):
        return None
    out: npt.NDArray[np.float16] = flat.reshape(len(draws), -1)
    return out


@dataclass(frozen=True)
class CleanDraws:
    """Which held-out draws are right on the clean images.

    Args:
        owner: by cell, a number that stands for its defense and images: these share their draws.
        keys: of (owner, index, draw), ascending int64.
        right: bool, for each key.
    """

    owner: dict[str, int]
    keys: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]

    def of(self, draws: Any) -> npt.NDArray[np.float64]:
        """For each row of an Arrow table, whether the clean image is right under the same draw; NaN: not known."""
        wanted = _draw_keys(draws, self.owner)
        if not len(self.keys):
            return np.full(len(wanted), np.nan)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, self.right[at], np.nan)


def _draw_keys(draws: Any, owner: dict[str, int]) -> npt.NDArray[np.int64]:
    # Cells come in as small codes, which the map turns into their owners.
    position: dict[str, int] = {}
    keys = _keys(draws, position)
    owners = np.array([owner[cell] for cell in position] or [0], np.int64)
    out: npt.NDArray[np.int64] = owners[keys >> 32] << 48 | (keys & 0xFFFFFFFF) << 16 | draws["draw"].to_numpy()
    return out


def clean_draws(parts: Iterable[tuple[Any, Any]], owner: dict[str, int]) -> CleanDraws:
    """The right draws of clean images, from pairs of records and draws of their cells alone."""
    keys, right = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for records, draws in parts:
        held = draws.filter(draws["held_out"]).combine_chunks()
        position: dict[str, int] = {}
        label = _by_image(records, "label", position, _keys(held, position))
        keys.append(_draw_keys(held, owner))
        right.append((held["pred"].to_numpy() == label) & ~held["rejected"].to_numpy())
    # The same clean images are judged once per threat.
    unique, first = np.unique(np.concatenate(keys), return_index=True)
    return CleanDraws(owner, unique, np.concatenate(right)[first])


def _by_image(records: Any, name: str, position: dict[str, int], keys: npt.NDArray[np.int64]) -> Any:
    """A column of the records, for each of `keys`."""
    known = _keys(records, position)
    order = np.argsort(known)
    values = records[name].to_numpy()[order].astype(np.int64)
    return values[np.searchsorted(known[order], keys)] if len(keys) else np.zeros(0, np.int64)


def votes_of(records: Any, draws: Any, clean: CleanDraws) -> dict[str, Any]:
    """The votes of one part.

    Args:
        records: Arrow table with cell, index, label and target.
        draws: Arrow table with cell, index, draw, held_out, pred, rejected and logits.
        clean: the draws of the clean images.

    Returns:
        Columns: cell, index, majority, mean_logit, newly_wrong (see `bench.results.Results`).
    """
    draws = draws.filter(draws["held_out"]).combine_chunks()
    position: dict[str, int] = {}
    keys = _keys(draws, position)
    rows = np.argsort(keys, kind="stable")
    groups, start, count = np.unique(keys[rows], return_index=True, return_counts=True)
    label, target = (_by_image(records, name, position, groups) for name in ("label", "target"))
    # A refusal is a class of its own.
    chosen = draws["pred"].to_numpy()
    pred = np.where(draws["rejected"].to_numpy(), -1, chosen)
    aim, own = np.repeat(target, count), np.repeat(label, count)
    won = np.where(aim < 0, pred[rows] != own, pred[rows] == aim) & (pred[rows] >= 0)
    newly = np.add.reduceat(clean.of(draws)[rows] * won, start) if len(groups) else np.zeros(0)
    logits = _logits(draws)
    by_vote, by_mean = np.full(len(groups), np.nan), np.full(len(groups), np.nan)
    for size in np.unique(count):
        same = np.flatnonzero(count == size)
        for at in np.split(same, range(_IMAGES, len(same), _IMAGES)):
            members = rows[start[at][:, None] + np.arange(size)]
            by_vote[at] = majority(pred[members], label[at])
            if size == 1:
                by_mean[at] = chosen[members[:, 0]] == label[at]  # stored logits are rounded: close ones may tie
            elif logits is not None:
                by_mean[at] = mean_logit(logits[members], label[at])
    names = np.array(list(position) or [""], dtype=object)
    found = {"majority": by_vote, "mean_logit": by_mean, "newly_wrong": newly}
    return {"cell": names[groups >> 32], "index": groups & 0xFFFFFFFF} | found


def vote_frame(parts: Iterable[tuple[Any, Any]], clean: CleanDraws) -> pd.DataFrame:
    """The votes of all parts, given as pairs of records and draws; see `bench.results.Results`."""
    import pandas as pd

    columns = {
        "cell": "str",
        "index": "int64",
        "majority": "float64",
        "mean_logit": "float64",
        "newly_wrong": "float64",
    }
    empty = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    frames = [pd.DataFrame(votes_of(records, draws, clean)).astype(columns) for records, draws in parts]
    return pd.concat(frames, ignore_index=True) if frames else empty
