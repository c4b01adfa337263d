"""Images by position: the same bits as all at once, no file decoded that is not used, and files that change."""

from __future__ import annotations

import hashlib
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from defenses.data import images as pictures
from defenses.data.dataset import dataset_info, labels_of, load_dataset
from defenses.data.pictures import UnreadableImage
from defenses.data.sources import base
from defenses.data.sources.corrupted import CORRUPTIONS
from defenses.utils.errors import UserError

RNG = np.random.default_rng(2)
N, AT = 9, [7, 0, 3, 3]
BYTES = RNG.integers(0, 256, (N, 6, 5, 3), np.uint8)
LABELS = np.arange(N) % 3


def write_folder(folder, mode="RGB"):
    for i, picture in enumerate(BYTES):
        (folder / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).convert(mode).save(folder / str(i % 3) / f"{i}.png")
    return f"folder:{folder}"


def write_npz(folder, save=np.savez, dtype=np.uint8, order="C"):
    x = BYTES if dtype == np.uint8 else (BYTES / 255).astype(dtype)
    save(folder / "own.npz", x=np.asarray(x, order=order), y=LABELS)
    return str(folder / "own.npz")


INDEXABLE = f"""
import numpy as np
X = np.random.default_rng(3).integers(0, 256, ({N}, 6, 5, 3), np.uint8)
Y = np.arange({N}) % 3
READ = []

class Images:
    revision = "v1"

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        READ.append(i)
        return X[i]

def arrays(split):
    return (X, Y) if split == "test" else None

def indexable(split):
    return (Images(), Y) if split == "test" else None
"""


def write_function(folder, text=INDEXABLE):
    (folder / "own.py").write_text(text)
    return f"{folder / 'own.py'}:indexable"


def write_hub(folder):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b", "c"])})
    table = datasets.Dataset.from_dict({"img": list(BYTES), "fine": LABELS.tolist()}, features=features)
    (folder / "hub").mkdir()
    table.to_parquet(str(folder / "hub" / "test-00000-of-00001.parquet"))
    return f"hf:{folder / 'hub'}"


def write_cifar(folder):
    (folder / "CIFAR-10-C").mkdir()
    np.save(folder / "CIFAR-10-C" / "fog.npy", BYTES)
    np.save(folder / "CIFAR-10-C" / "labels.npy", LABELS.astype(np.uint8))
    return "cifar10-c/fog/1"


SOURCES = {
    "digits": lambda folder: "digits",
    "folder": lambda folder: write_folder(folder / "own"),
    "cropped": lambda folder: f"{write_folder(folder / 'own')}?resize=7&crop=4",
    "grey": lambda folder: f"{write_folder(folder / 'own', 'L')}?mode=L",
    "npz": write_npz,
    "npz of floats": lambda folder: write_npz(folder, dtype=np.float64),
    "npz by columns": lambda folder: write_npz(folder, order="F"),
    "packed npz": lambda folder: write_npz(folder, np.savez_compressed, ">f4"),
    "function": lambda folder: write_function(folder).replace("indexable", "arrays"),
    "indexable": write_function,
    "hub": write_hub,
    "cifar10-c": write_cifar,
    **{
        f"corrupted {kind}": lambda folder, kind=kind: f"corrupted:{write_folder(folder / 'own')}/{kind}/3"
        for kind in ("gaussian_noise", "shot_noise", "motion_blur", "jpeg_compression")
    },
    "corrupted digits": lambda folder: "corrupted:digits/pixelate/3",
}


@pytest.mark.parametrize("kind", SOURCES)
def test_images_by_position_have_the_bits_of_all_at_once(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    name = SOURCES[kind](tmp_path)
    data, again = (load_dataset(name, root=tmp_path) for _ in range(2))
    assert data.x.dtype == torch.float32
    assert data.x.is_contiguous()
    assert data.x.shape == (len(data), *data.shape)
    assert data.shape == dataset_info(name, root=tmp_path).shape
    for positions in (AT, torch.tensor(AT), range(2, 5)):
        found = again.images(positions)
        assert torch.equal(found, data.x[list(map(int, positions))])
        assert found.is_contiguous()
    assert torch.equal(again.select(AT).images([1, 0]), data.x[[0, 7]])
    raw = np.int64(data.y[7]).tobytes() + data.x[7].numpy().tobytes()
    assert again.sha(7) == again.select(AT).sha(0) == hashlib.sha256(raw).hexdigest()
    assert again.y.tolist() == labels_of(name, "test", root=tmp_path)


def test_stored_bytes_become_the_floats_that_they_stand_for(tmp_path):
    expected = torch.from_numpy(BYTES.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    assert torch.equal(load_dataset(write_npz(tmp_path)).x, expected)
    assert torch.equal(load_dataset(write_npz(tmp_path, order="F")).images(AT), expected[AT])
    floats = torch.from_numpy((BYTES.transpose(0, 3, 1, 2) / 255).astype(np.float32))
    assert torch.equal(load_dataset(write_npz(tmp_path, dtype=np.float64)).images(AT), floats[AT])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_of_a_corrupted_folder_only_the_images_asked_for_are_decoded(kind, tmp_path, decoded):
    data = load_dataset(f"corrupted:{write_folder(tmp_path / 'own')}/{kind}/3")
    assert data.shape == (3, 6, 5)  # of the first picture
    decoded.clear()
    data.images([3, 5])
    assert len(decoded) == 2


def test_an_unreadable_picture_concerns_no_other(tmp_path):
    whole = load_dataset(f"corrupted:{write_folder(tmp_path / 'own')}/gaussian_blur/3").x
    shutil.copytree(tmp_path / "own", tmp_path / "cut")
    path = tmp_path / "cut" / "1" / "4.png"
    path.write_bytes(path.read_bytes()[:60])
    data = load_dataset(f"corrupted:folder:{tmp_path / 'cut'}/gaussian_blur/3")
    assert torch.equal(data.images([3, 5]), whole[[3, 5]])
    with pytest.raises(UnreadableImage, match=r"1/4.png is no readable picture"):
        data.images([3, 4])


# --- what is decoded


@pytest.fixture
def decoded(monkeypatch):
    """Names of the pictures that were decoded, in order."""
    names, real = [], pictures.open_picture

    def counting(path, stamp=None):
        names.append(str(path).rpartition("/")[2])
        return real(path, stamp)

    monkeypatch.setattr(pictures, "open_picture", counting)
    return names


def test_of_a_folder_only_what_is_used_is_decoded(tmp_path, decoded):
    name = write_folder(tmp_path / "own")
    assert dataset_info(name).shape == (3, 6, 5)
    assert labels_of(name, "test") == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert decoded == ["0.png"]
    data = load_dataset(f"{name}?crop=4")
    assert (len(data), data.shape) == (9, (3, 4, 4))
    assert repr(data).endswith("x=[9, 3, 4, 4], num_classes=3)")
    assert decoded == ["0.png"]  # the crop tells the shape
    data.select([8, 1]).images([0])
    data.sha(1)
    assert decoded == ["0.png", "8.png", "3.png"]


def test_pictures_of_another_size_are_refused_where_they_are_used(tmp_path):
    name = write_folder(tmp_path / "own")
    Image.fromarray(BYTES[0][:, :4]).save(tmp_path / "own" / "2" / "8.png")
    data = load_dataset(name)
    assert data.images(range(8)).shape == (8, 3, 6, 5)
    with pytest.raises(UserError, match=r"0/0.png is 5x6 and .*2/8.png is 4x6 pixels; add \?resize=N&crop=N"):
        data.images([8])


def test_a_file_with_several_names_is_hashed_once(tmp_path, monkeypatch):
    name, reads, real = write_folder(tmp_path / "own"), [], base.hash_of
    before = dataset_info(name).revision
    shutil.copytree(tmp_path / "own", tmp_path / "copy" / "own")
    for i in (3, 6):
        for folder in ("own", "copy/own"):
            (tmp_path / folder / "0" / f"{i}.png").unlink()
        os.link(tmp_path / "own" / "0" / "0.png", tmp_path / "own" / "0" / f"{i}.png")
        shutil.copy(tmp_path / "own" / "0" / "0.png", tmp_path / "copy" / "own" / "0" / f"{i}.png")
    copied = dataset_info(f"folder:{tmp_path}/copy/own").revision
    monkeypatch.setattr(base, "hash_of", lambda file, path: (reads.append(path), real(file, path))[1])
    assert dataset_info(name).revision == copied != before
    assert len(reads) == N - 2


# --- pictures that cannot be decoded, and files that change


def test_an_unreadable_picture_is_named_and_concerns_no_other(tmp_path):
    name = write_folder(tmp_path / "own")
    for file in ("0/0.png", "1/4.png"):
        path = tmp_path / "own" / file
        path.write_bytes(path.read_bytes()[:60])
    data = load_dataset(name)
    assert data.shape == (3, 6, 5)
    with pytest.raises(UnreadableImage, match=r"1/4.png is no readable picture \(.*\); mend or remove it"):
        data.images([3, 4, 5])
    assert torch.equal(data.first(3), data.images([1, 2, 3]))
    assert torch.equal(data.first(2, [4, 8, 0, 5, 2]), data.images([8, 5]))
    with pytest.raises(UnreadableImage, match=r"0/0.png"):
        data.first(2, [0, 4])
    with pytest.raises(UserError, match=r"0/0.png is no readable picture"):
        _ = data.x


@pytest.mark.parametrize("change", ["written", "removed"])
def test_a_folder_that_changes_is_told(change, tmp_path):
    data, path = load_dataset(write_folder(tmp_path / "own")), tmp_path / "own" / "1" / "4.png"
    if change == "written":
        path.write_bytes(path.read_bytes() + b"0")
    else:
        path.unlink()
    assert len(data.images([3, 5])) == 2
    with pytest.raises(UserError, match=r"1/4.png changed while the data set was read; .* repeat the command$"):
        data.images([4])


def test_a_file_of_arrays_that_changes_is_told(tmp_path):
    data = load_dataset(write_npz(tmp_path))
    write_npz(tmp_path, dtype=np.float32)
    with pytest.raises(UserError, match=r"own.npz changed while the data set was read"):
        data.images([0])


def test_a_link_to_nothing_is_told(tmp_path):
    name = write_folder(tmp_path / "own")
    (tmp_path / "own" / "0" / "x.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"0/x.png cannot be read \(No such file or directory\); mend or remove it"):
        dataset_info(name)


def test_a_flipped_bit_in_stored_arrays_is_found(tmp_path):
    path = tmp_path / "own.npz"
    write_npz(tmp_path)
    raw = bytearray(path.read_bytes())
    at = raw.index(BYTES[4].tobytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"own.npz: x is damaged"):
        load_dataset(str(path))


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_kept_hash_is_not_that_of_a_file_with_an_old_time(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_REMEMBERED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    name = write_folder(tmp_path / "own") if kind == "folder" else write_npz(tmp_path)
    path = tmp_path / "own" / "1" / "4.png" if kind == "folder" else tmp_path / "own.npz"
    before, times = dataset_info(name).revision, (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert base.stamp_of(path)[:2] == (len(content), times[1])
    assert dataset_info(name).revision != before


# --- an object of the user's


def test_an_object_of_the_users_is_asked_for_what_is_used(tmp_path):
    from defenses.utils.plugins import load_object

    name = write_function(tmp_path)
    whole = load_dataset(name.replace("indexable", "arrays"))
    data = load_dataset(name)
    read = load_object(name.replace("indexable", "READ"))
    assert set(read) == {0}
    read.clear()
    assert torch.equal(data.images(AT), whole.images(AT))
    assert read[-4:] == AT
    assert data.revision != whole.revision
    assert data.shas == whole.shas


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"v1"', "1", r'own.py:indexable\("test"\): x.revision is 1; it must be a text'),
        ("return X[i]", "return X[i] * 1.0", r"x\[0\] runs from .* images must lie in \[0, 1\]"),
        ("return X[i]", "return X[i][: 6 - i]", r"x\[0\] is 5x6 and .* is 5x5 pixels; give images of one shape"),
        ("return X[i]", "return X[i // (i != 1)]", r"x\[1\] cannot be read \(ZeroDivisionError.*\); mend the image"),
        ("return len(X)", "return 4", "has 4 images and 9 labels"),
        ("return len(X)", "return 1 // 0", r"x failed \(ZeroDivisionError.*\); give an array, or an object by index"),
    ],
)
def test_objects_that_cannot_be_used(old, new, words, tmp_path):
    name = write_function(tmp_path, INDEXABLE.replace(old, new))
    with pytest.raises(UserError, match=words) as error:
        _ = load_dataset(name).x
    assert "\n" not in str(error.value)


def test_the_revision_of_an_object_is_part_of_that_of_the_data(tmp_path):
    names = [tmp_path / place for place in ("a", "b", "c")]
    for folder, text in zip(names, (INDEXABLE, INDEXABLE, INDEXABLE.replace('"v1"', '"v2"')), strict=True):
        folder.mkdir()
        write_function(folder, text)
    a, b, c = (dataset_info(f"{folder}/own.py:indexable").revision for folder in names)
    assert a == b != c
