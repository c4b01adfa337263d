"""Pictures and arrays of users are read with their right values, classes and splits, or not at all."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from boards import purebench_here
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench import load_results
from bench.analysis.results import load_draws
from defenses.data.dataset import dataset_info, labels_of, load_dataset
from defenses.data.formats import to_nchw
from defenses.utils.errors import UserError
from defenses.utils.hints import hint


@pytest.fixture(autouse=True)
def _anew():
    hint.cache_clear()


def pictures(*folders: Path, count: int = 1, values: np.ndarray | None = None) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.full((4, 4), 200, np.uint8) if values is None else values).save(folder / f"{i}.png")


# --- folders


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev", "Valid"])
def test_folders_of_splits_are_no_classes(validation, tmp_path):
    for i, split in enumerate(("train", validation, "test")):
        pictures(tmp_path / split / "cat", tmp_path / split / "dog", count=i + 1)
    info = dataset_info(f"folder:{tmp_path}")
    assert info.splits == {"train": 2, "validation": 4, "test": 6}
    assert info.num_classes == 2
    assert labels_of(f"folder:{tmp_path}", "validation") == [0, 0, 1, 1]


def test_a_class_may_be_called_train(tmp_path):
    pictures(tmp_path / "car", tmp_path / "train")
    assert dataset_info(f"folder:{tmp_path}").splits == {"test": 2}
    assert labels_of(f"folder:{tmp_path}", "test") == [0, 1]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/cat", "test/cat", "unlabelled/x"), r"folders of splits \(test, train\) and others \(unlabelled\)"),
        (("train/cat", "val/cat", "valid/cat"), "two folders of the validation split, val and valid"),
        (("train", "test"), "test and train in .* hold pictures and no folders of classes"),
    ],
)
def test_folders_that_are_neither_splits_nor_classes_are_refused(folders, words, tmp_path):
    pictures(*(tmp_path / folder for folder in folders))
    with pytest.raises(UserError, match=words) as caught:
        dataset_info(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_no_class(tmp_path):
    pictures(tmp_path / "cat", tmp_path / "dog")
    (tmp_path / "annotations").mkdir()
    with pytest.raises(UserError, match='"annotations" holds no pictures; if it is no class, move it out'):
        dataset_info(f"folder:{tmp_path}")


def test_folders_of_programs_and_loose_pictures_are_left_out_aloud(tmp_path, caplog):
    pictures(tmp_path / "cat", tmp_path / "dog", tmp_path / ".thumbnails", tmp_path / "__MACOSX", tmp_path)
    with caplog.at_level(logging.WARNING, "purebench"):
        info = dataset_info(f"folder:{tmp_path}")
    assert info.num_classes == 2
    assert info.splits == {"test": 2}
    assert ".thumbnails, __MACOSX is no class and left out" in caplog.text
    assert "1 pictures, as 0.png, lie outside the folders of classes" in caplog.text


def test_numbered_classes_in_text_order_are_told(tmp_path, caplog):
    pictures(*(tmp_path / str(i) for i in (0, 1, 2, 10)))
    with caplog.at_level(logging.WARNING, "purebench"):
        dataset_info(f"folder:{tmp_path}")
    assert 'folder "10" is class 2 and not 10' in caplog.text
    caplog.clear()
    pictures(*(tmp_path / "padded" / f"{i:02}" for i in (0, 1, 2, 10)))
    with caplog.at_level(logging.WARNING, "purebench"):
        dataset_info(f"folder:{tmp_path / 'padded'}")
    assert caplog.text == ""


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("options", ["", "?mode=L", "?resize=4&crop=2"])
def test_pictures_of_16_bits_keep_their_grey(ending, options, tmp_path):
    values = np.array([[0, 16_384], [32_768, 65_535]], np.uint16).repeat(2, 0).repeat(2, 1)
    (tmp_path / "a").mkdir()
    Image.fromarray(values).save(tmp_path / "a" / f"0.{ending}")
    x = load_dataset(f"folder:{tmp_path}{options}").x
    expected = torch.from_numpy(values.astype(np.float32) / 65_535)
    expected = expected[1:3, 1:3] if "crop" in options else expected
    assert x.shape[1] == (1 if "mode=L" in options else 3)
    for channel in x[0]:
        torch.testing.assert_close(channel, expected, atol=0.5 / 255, rtol=0)


def test_pictures_of_32_bits_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a" / "0.tif")
    with pytest.raises(UserError, match=r"has values of 32 bits \(F\)"):
        load_dataset(f"folder:{tmp_path}")


# --- arrays


@given(st.sampled_from([1, 3, 4]), st.integers(5, 300), st.integers(5, 300), st.booleans())
def test_channels_are_found_where_only_one_axis_can_be_them(channels, high, wide, last):
    shape = (2, high, wide, channels) if last else (2, channels, high, wide)
    assert to_nchw(shape, "x") == ((channels, high, wide), last)


@pytest.mark.parametrize("shape", [(2, 200, 9, 9), (2, 9, 9, 200), (2, 2, 9, 9), (2, 3, 3, 3), (2, 3, 32, 3)])
def test_channels_that_the_shape_does_not_tell_are_asked_for(shape, tmp_path):
    x, y = np.full(shape, 200, np.uint8), np.zeros(2, np.int64)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(UserError, match='give layout = "NCHW" or "NHWC" beside it'):
        dataset_info(str(tmp_path / "a.npz"))
    for layout, expected in (("NCHW", shape[1:]), ("NHWC", (shape[3], *shape[1:3]))):
        np.savez(tmp_path / "b.npz", x=x, y=y, layout=layout)
        assert dataset_info(str(tmp_path / "b.npz")).shape == expected
        assert load_dataset(str(tmp_path / "b.npz")).x.shape[1:] == expected
    np.savez(tmp_path / "c.npz", x=x, y=y, layout="CHWN")
    with pytest.raises(UserError, match='layout is "CHWN"; it must be "NCHW" or "NHWC"'):
        dataset_info(str(tmp_path / "c.npz"))


def test_a_function_may_state_its_layout(tmp_path):
    text = "import numpy as np\ndef load(split):\n    return {'x': np.full((2, 200, 9, 9), 200, np.uint8), "
    (tmp_path / "own.py").write_text(text + "'y': np.zeros(2, int), 'layout': 'NCHW'} if split == 'test' else None\n")
    assert load_dataset(f"{tmp_path}/own.py:load").x.shape == (2, 200, 9, 9)


@pytest.mark.parametrize("ending", ["train", "training", "valid", "val", "dev", "validation"])
def test_splits_of_an_npz_by_any_of_their_names(ending, tmp_path):
    np.savez(tmp_path / "a.npz", **{f"x_{ending}": np.full((2, 9, 9), 200, np.uint8), f"y_{ending}": np.zeros(2, int)})
    expected = "train" if ending.startswith("train") else "validation"
    assert dataset_info(str(tmp_path / "a.npz")).splits == {expected: 2}


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((2, 9, 9), 16, np.uint8), "x is uint8 up to 16 and read as 16/255; if 16 is white, store x / 16"),
        (np.full((2, 9, 9), 1, np.uint8), "uint8 up to 1 and read as 1/255"),
        (np.full((2, 9, 9), 1 / 255, np.float32), "no value above 0.00392; if the images are not that dark"),
    ],
)
def test_images_that_are_nearly_black_are_told(x, words, tmp_path, caplog):
    np.savez(tmp_path / "a.npz", x=x, y=np.zeros(2, int))
    with caplog.at_level(logging.WARNING, "purebench"):
        load_dataset(str(tmp_path / "a.npz"))
    assert words in caplog.text
    assert len(caplog.records) == 1
    caplog.clear()
    np.savez(tmp_path / "a.npz", x=np.full((2, 9, 9), 0.9, np.float32), y=np.zeros(2, int))
    with caplog.at_level(logging.WARNING, "purebench"):
        load_dataset(str(tmp_path / "a.npz"))
    assert not caplog.records


def test_40000_classes_keep_their_labels(tmp_path):
    """Labels and predictions are numbers above int16."""
    (tmp_path / "own.py").write_text("""
import numpy as np, torch
LABELS = np.array([3, 32_767, 32_768, 39_999])
def load(split):
    x = np.tile(np.linspace(0.1, 1, 4, dtype=np.float32)[:, None, None], (1, 8, 8))
    return {"x": x, "y": LABELS, "num_classes": 40_000} if split == "test" else None
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.register_buffer("at", torch.from_numpy(LABELS))
        self.eval()
    def forward(self, x):
        value = x.mean((1, 2, 3))[:, None] * self.scale
        near = -(value - torch.linspace(0.1, 1, 4)).abs()
        return torch.full((len(x), 40_000), -9.0).index_copy(1, self.at, 9 * near)
""")
    board = tmp_path / "b.toml"
    board.write_text(
        f'dataset = "{tmp_path}/own.py:load"\nblock = 2\nthreat = {{ norm = "Linf", eps = "1/100" }}\n'
        f'defense = [{{ name = "{tmp_path}/own.py:Net" }}]\n'
        'attack = [{ name = "bench:pgd", params = { steps = 2 } }]\n'
    )
    done = purebench_here("run", board, "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 0, done.stderr
    frame = load_results(tmp_path / "out")
    assert frame.groupby("image")["label"].first().tolist() == [3, 32_767, 32_768, 39_999]
    assert (frame["accuracy"] == 1).all()
    draws = load_draws(tmp_path / "out")
    assert set(draws["pred"]) == {3, 32_767, 32_768, 39_999}
