"""Judge adversarial images that somebody else made: a board whose attacks are files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.board.attack_entry import AttackEntry
from bench.board.board import Board
from bench.board.indices import resolve
from bench.spec.aggregation import Aggregation
from bench.spec.cell import GIVEN, DefenseRef, VerdictSpec
from bench.spec.threat import ThreatModel
from bench.store.folder import Store, write_atomic
from bench.store.manifest import check_board
from defenses.data.dataset import dataset_info, labels_of, load_dataset
from defenses.utils.errors import UserError

if TYPE_CHECKING:
    from bench.attacks.precomputed_files import PrecomputedImages

_LIST = "indices.json"  # in the results folder, where no name stands for the list


@dataclass(frozen=True)
class JudgeOptions:
    """How given images are judged.

    Args:
        defenses: who is asked.
        threat: what the images may be.
        dataset: whose images they were.
        split: of it.
        indices: an index list, which all files must cover, and which a file without `index` follows; None: the
            images that the files name, or the first n.
        clean: an .npz of the clean images x in the order of the files: they are found in the split by their pixels,
            and stand for `indices` then.
        verdict: draws.
        protocols: what they are combined to.
        seed: of the draws.
        block: images per unit of work.
        minimisation: images may lie outside the ball; they do not count then.
        data_root: where data sets lie.
    """

    defenses: tuple[DefenseRef, ...]
    threat: ThreatModel
    dataset: str = "digits"
    split: str = "test"
    indices: str | None = None
    clean: Path | None = None
    verdict: VerdictSpec = field(default_factory=lambda: VerdictSpec(65, 16))
    protocols: Aggregation = field(default_factory=Aggregation)
    seed: int = 0
    block: int = 100
    minimisation: bool = False
    data_root: Path | None = None


@contextmanager
def judge_board(given: Sequence[PrecomputedImages], request: JudgeOptions, name: str, out: Path) -> Iterator[Board]:
    """A board that judges given images; it can be run within the context, where the images lie in a scratch folder.

    The key of a cell has the hash of its images, so a file that is judged again, or under another name, is not.

    Args:
        given: the images, each with a label of its own.
        request: how.
        name: of the board.
        out: the results folder; the list of images is put there if it has no name.

    Raises:
        UserError: images of another shape or number, labels that are not the data set's, an image that it does not
            have, or that only some files have; nothing has been written then.
    """
    info = dataset_info(request.dataset, root=request.data_root)
    if request.split not in info.splits:
        raise UserError(f"{request.dataset} has no {request.split} split; it has {', '.join(info.splits)}")
    size = info.splits[request.split]
    listed = _listed(request, size)
    labels = labels_of(request.dataset, request.split, root=request.data_root)
    positions = [_positions(g, listed, size, request) for g in given]
    for g, at in zip(given, positions, strict=True):
        _check(g, at, info.shape, labels, request)
    chosen = listed if request.indices else sorted(positions[0])
    named = request.indices or _named(chosen, size)
    with tempfile.TemporaryDirectory(prefix="purebench-") as scratch:
        folder = Path(scratch)
        (folder / _LIST).write_text(json.dumps(chosen) + "\n", encoding="ascii")
        entries = [
            _entry(g, at, chosen, folder, minimisation=request.minimisation)
            for g, at in zip(given, positions, strict=True)
        ]
        board = Board(
            name=name,
            title=f"Given images, {request.threat}",
            dataset=request.dataset,
            threats=(request.threat,),
            defenses=request.defenses,
            attacks=tuple(entries),
            split=request.split,
            indices=named or str(folder / _LIST),
            block=request.block,
            verdict=request.verdict,
            protocols=request.protocols,
            seed=request.seed,
            data_root=request.data_root,
        )
        check_board(out, board.name)
        board.cells()  # finds images that are given twice
        if not named:
            write_atomic(Store(out).folder / _LIST, (folder / _LIST).read_bytes())
            board = replace(board, indices=str(out / _LIST))
        yield board


def unchanged(out: Path, given: Sequence[PrecomputedImages]) -> list[str]:
    """Labels of the given images of which none differs from the clean one, as the results folder says after a run."""
    from bench.attacks.precomputed import UNCHANGED
    from bench.store.parts import stored

    lines = [line for line, _ in stored(out / "parts").values()]
    found = {g.label: [x for x in lines if x["attack"] == g.label] for g in given}
    return [label for label, of in found.items() if of and all(UNCHANGED in x.get("notes", ()) for x in of)]


def _listed(request: JudgeOptions, size: int) -> list[int]:
    """The positions that the request names, in its order; empty: it names none."""
    if request.indices and request.clean:
        raise UserError("the images are named twice; leave out --indices or --clean")
    if request.clean:
        return _found(request.clean, request)
    if not request.indices:
        return []
    labels = partial(labels_of, request.dataset, request.split, root=request.data_root)
    return list(resolve(request.indices, size, dataset=request.dataset, split=request.split, labels=labels).positions)


def _found(path: Path, request: JudgeOptions) -> list[int]:
    """Where the images of a file lie in the split, by their pixels; of equal ones the first that is left."""
    from bench.attacks.precomputed_files import read_given

    data = load_dataset(request.dataset, request.split, root=request.data_root)
    places: dict[bytes, list[int]] = {}
    for i, image in enumerate(data.x.numpy()):
        places.setdefault(image.tobytes(), []).append(i)
    found = []
    for row, image in enumerate(read_given(path)[0].x):
        left = places.get(image.tobytes(), [])
        if not left:
            where = f"the {request.split} split of {request.dataset}, to the bit"
            raise UserError(f"image {row} of {path} is not in {where}; name its images by index or --indices")
        found.append(left.pop(0))
    return found


def _positions(given: PrecomputedImages, listed: list[int], size: int, request: JudgeOptions) -> list[int]:
    """The position of every image of a file."""
    if given.index is not None:
        return [int(i) for i in given.index]
    n = len(given.x)
    if not (request.indices or request.clean):
        if n > size:
            raise UserError(f"{given.source} holds {n} images; the {request.split} split has {size}")
        return list(range(n))
    if n != len(listed):
        raise UserError(
            f"{given.source} holds {n} images where {request.indices or request.clean} names {len(listed)}; "
            "add an array index, or name the list that they are of"
        )
    return listed


def _check(
    given: PrecomputedImages, at: list[int], shape: tuple[int, int, int], labels: list[int], request: JudgeOptions
) -> None:
    """The file's images can be those of the data set."""
    if given.x.shape[1:] != shape:
        has, wants = ("x".join(map(str, s)) for s in (given.x.shape[1:], shape))
        raise UserError(f"{given.source} has images of {has}; those of {request.dataset} are {wants}")
    outside = next((i for i in at if i >= len(labels)), None)
    if outside is not None:
        raise UserError(
            f"{given.source}: index has image {outside}; the {request.split} split has images 0 to {len(labels) - 1}"
        )
    for row, i in enumerate(at if given.y is not None else []):
        if given.y is not None and int(given.y[row]) != labels[i]:
            raise UserError(
                f"{given.source}: y of image {row} is {given.y[row]}, and image {i} of the {request.split} split of "
                f"{request.dataset} is a {labels[i]}; say which images they are (index, --indices, --clean)"
            )


def _entry(
    given: PrecomputedImages, at: list[int], chosen: list[int], scratch: Path, *, minimisation: bool
) -> AttackEntry:
    """An attack of the board; its images are put into the scratch folder in one form, whatever file they came in."""
    import numpy as np
    from safetensors.numpy import save_file

    rows = {i: row for row, i in enumerate(at)}
    missing = next((i for i in chosen if i not in rows), None)
    if missing is not None:
        raise UserError(
            f"{given.source} lacks image {missing}; all files must have the same images, or --indices names some"
        )
    path = scratch / f"{len(list(scratch.iterdir()))}.safetensors"  # any name: what counts is what is in it
    x = np.ascontiguousarray(given.x[[rows[i] for i in chosen]])
    save_file({"index": np.array(chosen, np.int64), "x_adv": x}, path)
    return AttackEntry(f"{GIVEN}{path}", given.label, {"minimisation": True} if minimisation else {})


def _named(chosen: list[int], size: int) -> str | None:
    """The name of a list of positions; None: it has none."""
    n = len(chosen)
    return None if chosen != list(range(n)) else "all" if n == size else f"first-{n}"
