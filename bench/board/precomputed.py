"""Judge precomputed adversarial images, by a board whose attacks are their files."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.attacks.precomputed import UNCHANGED
from bench.board.attack_entry import AttackEntry
from bench.board.board import Board
from bench.board.indices import resolve
from bench.spec.aggregation import Aggregation
from bench.spec.cell import PRECOMPUTED, DefenseRef, VerdictSpec
from bench.spec.threat import ThreatModel
from bench.store.folder import Store, write_atomic
from bench.store.manifest import check_board
from bench.store.parts import stored
from defenses.data.dataset import dataset_info, labels_of, load_dataset
from defenses.data.sources.base import split_name
from defenses.utils.errors import UserError
from defenses.utils.hints import note

if TYPE_CHECKING:
    from bench.attacks.precomputed_files import PrecomputedImages
    from defenses.utils.arrays import F32

_COMPARED = 20  # images whose order is checked
_LIST = "indices.json"  # in the results folder, for a list without a name


@dataclass(frozen=True)
class JudgeOptions:
    """Options for judging precomputed images.

    Args:
        defenses: defenses that the images are judged on.
        threat: threat model that the images must keep to.
        dataset: data set of the clean images.
        split: split of the data set.
        indices: index list, which all files must cover, and whose order a file without `index` has; None: the images
            that the files name, or the first n.
        clean: an .npz of the clean images x in the order of the files, which are found in the split by their pixels; in
            place of `indices`.
        verdict: numbers of draws.
        protocols: aggregations of the draws.
        seed: seed of the draws.
        block: images of a cell.
        minimisation: images may lie outside the ball, and count as failed there.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", split_name(self.split))


@contextmanager
def judge_board(images: Sequence[PrecomputedImages], request: JudgeOptions, name: str, out: Path) -> Iterator[Board]:
    """Yield a board that judges precomputed images, which lie in a scratch folder within the context.

    Notes on the files are logged before, and after it those of images that all equal the clean ones.

    The key of a cell depends on its images, so a file that was judged, also under another name, is not judged again.

    Args:
        images: images of attacks, each under another label.
        request: options.
        name: name of the board.
        out: the results folder; a list of images without a name is written to it.

    Raises:
        UserError: images of another shape or number, labels that differ from the data set's, an image that is not in
            the data set or not in all files; nothing has been written then.
    """
    info = dataset_info(request.dataset, root=request.data_root)
    if request.split not in info.splits:
        raise UserError(f"{request.dataset} has no {request.split} split; it has {', '.join(info.splits)}")
    size = info.splits[request.split]
    listed = _listed(request, size)
    labels = labels_of(request.dataset, request.split, root=request.data_root)
    pairs = [(part, _positions(part, listed, size, request)) for part in images]
    for part, at in pairs:
        _check(part, at, info.shape, labels, request)
    chosen = listed if request.indices else sorted(pairs[0][1])
    list_name = request.indices or _name_of(chosen, size)
    with tempfile.TemporaryDirectory(prefix="purebench-") as scratch:
        folder = Path(scratch)
        (folder / _LIST).write_text(json.dumps(chosen) + "\n", encoding="ascii")
        entries = [_entry(*pair, chosen, folder, minimisation=request.minimisation) for pair in pairs]
        board = Board(
            name=name,
            title=f"Given images, {request.threat}",
            dataset=request.dataset,
            threats=(request.threat,),
            defenses=request.defenses,
            attacks=tuple(entries),
            split=request.split,
            indices=list_name or str(folder / _LIST),
            block=request.block,
            verdict=request.verdict,
            protocols=request.protocols,
            seed=request.seed,
            data_root=request.data_root,
            notes=_order_notes(images, request, info.name),
        )
        check_board(out, board.name)
        board.cells()  # refuses the same images under two labels
        if not list_name:
            write_atomic(Store(out).folder / _LIST, (folder / _LIST).read_bytes())
            board = replace(board, indices=str(out / _LIST))
        _note_each(text for part in images for text in part.notes)
        yield board
    _note_each(f"{label}: every image is the clean one, so nothing was attacked" for label in _unchanged(out, images))


def _note_each(texts: Iterable[str]) -> None:
    for text in dict.fromkeys(texts):
        note(text)


def _order_notes(images: Sequence[PrecomputedImages], request: JudgeOptions, dataset: str) -> tuple[str, ...]:
    """Return a note if unnamed images of digits are not those of the split's order, as of scikit-learn's."""
    unnamed = next((part for part in images if part.index is None), None)
    if unnamed is None or request.indices or request.clean or dataset != "digits":
        return ()
    clean = load_dataset(request.dataset, request.split, root=request.data_root).x.flatten(1).numpy()
    few = unnamed.x[:_COMPARED].reshape(-1, clean.shape[1])
    nearest = [int(((clean - image) ** 2).sum(1).argmin()) for image in few]
    others = sum(at != i for i, at in enumerate(nearest))
    if 2 * others <= len(few):
        return ()
    return (
        f"{others} of the first {len(few)} images of {unnamed.label[:200]} are nearer to other images than those of "
        f"the {request.split} split, a permutation of scikit-learn's, in its order; make them of "
        f'defenses.data.load_dataset("digits", split="{request.split}"), or name them by an array index or a file of '
        "the clean ones (--clean)",
    )


def _unchanged(out: Path, images: Sequence[PrecomputedImages]) -> list[str]:
    """Return the labels of the files whose images all equal the clean ones.

    Args:
        out: the results folder, after a run.
        images: images of attacks, each under another label.
    """
    lines = [line for line, _ in stored(out / "parts").values()]
    by_label = {part.label: [x for x in lines if x["attack"] == part.label] for part in images}
    return [label for label, of in by_label.items() if of and all(UNCHANGED in x.get("notes", ()) for x in of)]


def _listed(request: JudgeOptions, size: int) -> list[int]:
    """Return the positions that the options name, in their order; empty where they name none."""
    if request.indices and request.clean:
        raise UserError("the images are named twice; leave out --indices or --clean")
    if request.clean:
        return _find_images(request.clean, request)
    if not request.indices:
        return []
    labels = partial(labels_of, request.dataset, request.split, root=request.data_root)
    return list(resolve(request.indices, size, dataset=request.dataset, split=request.split, labels=labels).positions)


def _find_images(path: Path, request: JudgeOptions) -> list[int]:
    """Return the positions of the images of a file in the split, by their pixels; equal images are taken in order."""
    from bench.attacks.precomputed_files import read_precomputed

    data = load_dataset(request.dataset, request.split, root=request.data_root)
    places: dict[bytes, list[int]] = {}
    for i in range(len(data)):
        places.setdefault(_pixels_hash(data.images([i]).numpy()), []).append(i)
    positions = []
    for row, image in enumerate(read_precomputed(path)[0].x):
        left = places.get(_pixels_hash(image), [])
        if not left:
            where = f"the {request.split} split of {request.dataset}, to the bit"
            raise UserError(f"image {row} of {path} is not in {where}; name its images by index or --indices")
        positions.append(left.pop(0))
    return positions


def _pixels_hash(image: F32) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _positions(images: PrecomputedImages, listed: list[int], size: int, request: JudgeOptions) -> list[int]:
    """Return the position of every image of a file."""
    if images.index is not None:
        return [int(i) for i in images.index]
    n = len(images.x)
    if not (request.indices or request.clean):
        if n > size:
            raise UserError(f"{images.source} holds {n} images; the {request.split} split has {size}")
        return list(range(n))
    if n != len(listed):
        raise UserError(
            f"{images.source} holds {n} images where {request.indices or request.clean} names {len(listed)}; "
            "add an array index, or name the list that they are of"
        )
    return listed


def _check(
    images: PrecomputedImages, at: list[int], shape: tuple[int, int, int], labels: list[int], request: JudgeOptions
) -> None:
    """Refuse a file whose image shape, positions or labels differ from the data set's."""
    if images.x.shape[1:] != shape:
        has, wants = ("x".join(map(str, s)) for s in (images.x.shape[1:], shape))
        raise UserError(f"{images.source} has images of {has}; those of {request.dataset} are {wants}")
    outside = next((i for i in at if i >= len(labels)), None)
    if outside is not None:
        raise UserError(
            f"{images.source}: index has image {outside}; the {request.split} split has images 0 to {len(labels) - 1}"
        )
    for row, i in enumerate(at if images.y is not None else []):
        if images.y is not None and int(images.y[row]) != labels[i]:
            raise UserError(
                f"{images.source}: y of image {row} is {images.y[row]}, and image {i} of the {request.split} split of "
                f"{request.dataset} is a {labels[i]}; say which images they are (index, --indices, --clean)"
            )


def _entry(
    images: PrecomputedImages, at: list[int], chosen: list[int], scratch: Path, *, minimisation: bool
) -> AttackEntry:
    """Return an attack of the board, after writing its images to the scratch folder in the format of cells."""
    import numpy as np
    from safetensors.numpy import save_file

    rows = {i: row for row, i in enumerate(at)}
    missing = next((i for i in chosen if i not in rows), None)
    if missing is not None:
        raise UserError(
            f"{images.source} lacks image {missing}; all files must have the same images, or --indices names some"
        )
    path = scratch / f"{len(list(scratch.iterdir()))}.safetensors"  # no part of the key
    x = np.ascontiguousarray(images.x[[rows[i] for i in chosen]])
    save_file({"index": np.array(chosen, np.int64), "x_adv": x}, path)
    return AttackEntry(f"{PRECOMPUTED}{path}", images.label, {"minimisation": True} if minimisation else {})


def _name_of(chosen: list[int], size: int) -> str | None:
    """Return the name of a list of positions; None where it has none."""
    n = len(chosen)
    return None if chosen != list(range(n)) else "all" if n == size else f"first-{n}"
