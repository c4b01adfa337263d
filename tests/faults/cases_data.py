"""Data sets of one's own that cannot be what they seem: arrays, pictures, functions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faults.catalogue import case
from faults.ground import Ground, Outcome, Told, nothing_written, run_command

_N = 20


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from defenses.data.dataset import load_dataset

    digits = load_dataset("digits")
    return digits.x[:_N].numpy(), digits.y[:_N].numpy()


def _board(ground: Ground, dataset: object) -> Path:
    return ground.board("", ('dataset = "digits"', f'dataset = "{dataset}"'), ('"first-60"', '"all"'), name="own.toml")


def _run(ground: Ground, dataset: object) -> Told:
    return ground.run(_board(ground, dataset), ground.tmp / "own", "--defense", "linear", "--attack", "none")


def _refused(ground: Ground, arrays: dict[str, Any], *words: str) -> Outcome:
    file = ground.tmp / "own.npz"
    np.savez(file, **arrays)
    told = _run(ground, file)
    nothing_written(ground.tmp / "own")
    return Outcome(told, (file.name, *words))


def _right(ground: Ground) -> list[int]:
    from bench import load_results

    frame = load_results(ground.tmp / "own").query("attack == 'none'").sort_values("image")
    return [int(k) for k in frame["correct"]]


def _pictures(folder: Path, x: np.ndarray, y: np.ndarray, bits: int = 8) -> None:
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        values = (image[0] * (2**bits - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)
        Image.fromarray(values).save(folder / str(label) / f"{i:03}.png")


@case("the validation images of a folder, by each of the names that such a split has", "the same cells")
def names_of_a_split(ground: Ground) -> Outcome:
    from defenses.data.dataset import load_dataset

    x, y = _digits()
    for split in ("train", "val", "test"):
        _pictures(ground.tmp / "pictures" / split, x, y)
    data, out = f"folder:{ground.tmp / 'pictures'}?mode=L", ground.tmp / "own"
    lines = []
    for name in ("val", "validation", "valid", "dev"):
        board = _board(ground, data)
        board.write_text(board.read_text().replace("indices =", f'split = "{name}"\nindices ='))
        told = ground.run(board, out, "--defense", "linear", "--attack", "none")
        assert told.code == 0, told.stderr
        lines.append((out / "plan.jsonl").read_text())
    assert [line == lines[0] for line in lines] == [True] * 4
    assert '"split": "validation"' in lines[0]
    images = ground.tmp / "x.npz"
    np.savez(images, x_adv=load_dataset(data, "val").x.numpy())
    words = ("--defense", f"{ground.base.folder / 'models.py'}:linear", "--dataset", data, "--split", "dev")
    told = run_command("judge", images, *words, "--eps", "1/10", "--workers", "0", "--out", ground.tmp / "judged")
    assert '"split": "validation"' in (ground.tmp / "judged" / "plan.jsonl").read_text(), told.stderr
    return Outcome(told, code=0)


@case("labels of shape [N, 1], or one-hot rows", "refused naming the file, or read as what they say")
def labels_of_another_shape(ground: Ground) -> Iterator[Outcome]:
    x, y = _digits()
    yield _refused(ground, {"x": x, "y": y[:, None]}, "y")
    yield _refused(ground, {"x": x, "y": np.eye(10)[y]}, "y")


@case("labels that are fractions, or NaN", "refused naming the file")
def labels_that_are_no_numbers_of_classes(ground: Ground) -> Iterator[Outcome]:
    x, y = _digits()
    yield _refused(ground, {"x": x, "y": y + 0.5}, "y")
    yield _refused(ground, {"x": x, "y": np.where(y == 1, np.nan, y)}, "y")


@case("negative labels", "refused naming the file")
def labels_below_zero(ground: Ground) -> Outcome:
    x, y = _digits()
    return _refused(ground, {"x": x, "y": y - 1}, "y")


@case("labels above the classes of the model", "refused before any work, naming the defense")
def labels_above_the_classes(ground: Ground) -> Outcome:
    x, y = _digits()
    file = ground.tmp / "own.npz"
    np.savez(file, x=x, y=y + 3)
    told = _run(ground, file)
    assert not list((ground.tmp / "own").glob("parts/*"))
    return Outcome(told, ("linear", "classes"))


@case("fewer labels than images", "refused naming the file")
def fewer_labels(ground: Ground) -> Outcome:
    x, y = _digits()
    return _refused(ground, {"x": x, "y": y[:-1]})


@case("float images of 0 to 255, or standardised ones", "refused naming the file and the range")
def images_of_another_range(ground: Ground) -> Iterator[Outcome]:
    x, y = _digits()
    yield _refused(ground, {"x": x * 255, "y": y}, "[0, 1]")
    yield _refused(ground, {"x": (x - x.mean()) / x.std(), "y": y}, "[0, 1]")


@case("arrays whose axes may be channels or pixels", "refused, asking for the layout")
def unclear_layout(ground: Ground) -> Outcome:
    return _refused(ground, {"x": np.full((4, 2, 9, 9), 200, np.uint8), "y": np.zeros(4, int)}, "layout")


@case("a data file without arrays of images and labels", "refused, naming those that it has")
def other_names(ground: Ground) -> Outcome:
    x, y = _digits()
    return _refused(ground, {"pictures": x, "classes": y}, "pictures")


@case("images of no pixels, or no images", "refused naming the file")
def nothing_there(ground: Ground) -> Iterator[Outcome]:
    x, y = _digits()
    yield _refused(ground, {"x": x[:0], "y": y[:0]})
    yield _refused(ground, {"x": x[..., :0], "y": y})


@case("bytes of 0 to 16, as digits have them, read as parts of 255", "told, with the remedy")
def nearly_black(ground: Ground) -> Outcome:
    x, y = _digits()
    file = ground.tmp / "own.npz"
    np.savez(file, x=(x * 16).astype(np.uint8), y=y)
    told = ground.forked(_board(ground, file), ground.tmp / "own")  # a process of its own, whose warnings are printed
    return Outcome(told, ("uint8 up to 16", "store x / 16"), code=0)


@case("a folder with train, valid and test folders", "these are splits, and no classes")
def splits_of_a_folder(ground: Ground) -> Outcome:
    x, y = _digits()
    for split, part in (("train", slice(0, 5)), ("valid", slice(5, 10)), ("test", slice(0, _N))):
        _pictures(ground.tmp / "pictures" / split, x[part], y[part])
    told = _run(ground, f"folder:{ground.tmp / 'pictures'}?mode=L")
    assert told.code == 0, told.stderr
    assert len(_right(ground)) == _N
    return Outcome(told, code=0)


@case("pictures of 16 bits", "they have the values of the same pictures of 8 bits")
def sixteen_bits(ground: Ground) -> Outcome:
    x, y = _digits()
    answers = []
    for bits in (8, 16):
        _pictures(ground.tmp / str(bits), x, y, bits)
        told = _run(ground, f"folder:{ground.tmp / str(bits)}?mode=L")
        answers.append(_right(ground))
        (ground.tmp / "own").rename(ground.tmp / f"own{bits}")
    assert answers[0] == answers[1]
    assert sum(answers[0]) > _N / 2
    return Outcome(told, code=0)


@case("a picture that is cut short", "an error of its cells, naming it; the others are as without it")
def cut_picture(ground: Ground) -> Outcome:
    from bench.analysis.results import load_cells

    x, y = _digits()
    _pictures(ground.tmp / "pictures", np.concatenate((x, x)), np.concatenate((y, y)))
    data = f"folder:{ground.tmp / 'pictures'}?mode=L"
    assert _run(ground, data).code == 0
    right = _right(ground)
    (ground.tmp / "own").rename(ground.tmp / "whole")
    file = max((ground.tmp / "pictures").rglob("*.png"))
    file.write_bytes(file.read_bytes()[:-40])
    told = _run(ground, data)
    run = load_cells(ground.tmp / "own").query("status != 'missing'")
    statuses = run.groupby("block")["status"].unique()
    assert [list(s) for s in statuses] == [["ok"], ["error"]]
    assert _right(ground)[1:] == right[:_N]  # before them the line of the failed cell
    return Outcome(told, (file.name,))


@case("a folder of pictures that changes while it is read", "one line naming the picture; what is finished stays")
def changing_folder(ground: Ground) -> Outcome:
    from defenses.data import images

    x, y = _digits()
    _pictures(ground.tmp / "pictures", np.concatenate((x, x)), np.concatenate((y, y)))
    files = sorted((ground.tmp / "pictures").rglob("*.png"))
    real = images.open_picture

    def opened(path: str, stamp: Any = None) -> Any:
        if path == str(files[_N]):  # the first of the second block
            files[-1].unlink(missing_ok=True)
        return real(path, stamp)

    ground.monkeypatch.setattr(images, "open_picture", opened)
    told = _run(ground, f"folder:{ground.tmp / 'pictures'}?mode=L")
    assert len(_right(ground)) == _N
    return Outcome(told, (files[-1].name, "changed"))


@case("folders of classes 0 to 10 without leading zeros, whose order in text is another", "told")
def numbered_folders(ground: Ground) -> Outcome:
    x, y = _digits()
    _pictures(ground.tmp / "pictures", x, np.where(y == 9, 10, y))
    told = ground.forked(_board(ground, f"folder:{ground.tmp / 'pictures'}?mode=L"), ground.tmp / "own")
    return Outcome(told, ('folder "10" is class',), code=0)


def _function(ground: Ground, body: str) -> Told:
    file = ground.tmp / "data.py"
    file.write_text(f"import numpy as np\ndef load(split):\n    {body}\n")
    told = _run(ground, f"{file}:load")
    nothing_written(ground.tmp / "own")
    return told


@case("a data function that gives other images at every call", "refused naming it")
def other_images_at_every_call(ground: Ground) -> Outcome:
    return Outcome(_function(ground, "return np.random.rand(4, 8, 8).astype('float32'), np.arange(4)"), ("data.py",))


@case("a data function that raises, returns nothing, or one array", "refused naming it")
def function_without_data(ground: Ground) -> Iterator[Outcome]:
    for body in ("raise KeyError(split)", "return None", "return np.zeros((4, 8, 8))"):
        yield Outcome(_function(ground, body), ("data.py",))
