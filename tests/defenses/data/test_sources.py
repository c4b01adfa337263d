"""Published formats, folders of pictures and RobustBench's files, against the libraries that define them."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets as theirs
from torchvision import transforms

from defenses.data.dataset import dataset_info, labels_of, load_dataset
from defenses.data.sources import base, published, robustbench
from defenses.data.sources.files import files_of
from defenses.utils.errors import UserError
from defenses.utils.names import portable

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def refused(words, name, split="test", **root):
    with pytest.raises(UserError, match=words) as error:
        _ = load_dataset(name, split, **root).x
    assert "\n" not in str(error.value)


def agree(ours, images, labels):
    """The same bits as torchvision's ToTensor of its own images."""
    assert ours.y.tolist() == list(labels)
    expected = torch.stack([transforms.functional.to_tensor(image) for image in images])
    assert torch.equal(ours.x, expected)
    assert ours.x.is_contiguous()


def splits_of(name, root, test, train):
    """Test in the official order; validation the last 5,000 of train."""
    agree(load_dataset(name, root=root), *test)
    images, labels = train
    part = load_dataset(name, "train", root=root)
    assert len(part) == len(labels) - 5000
    agree(part, images[:-5000], labels[:-5000])
    assert load_dataset(name, "validation", root=root).y.tolist() == list(labels[-5000:])
    assert labels_of(name, "validation", root=root) == list(labels[-5000:])


def test_fashion_mnist_agrees_with_torchvision(tmp_path, monkeypatch):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 5004), ("t10k", 6)):
        x, y = RNG.integers(0, 256, (n, 28, 28), np.uint8), RNG.integers(0, 10, n, np.uint8)
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes(), 1))
    monkeypatch.setitem(published.CHECKSUMS, "fashion-mnist", {p.name: md5(p) for p in raw.glob("*.gz")})
    sets = [theirs.FashionMNIST(str(tmp_path), train=train) for train in (False, True)]
    splits_of("fashion-mnist", tmp_path, *(([i for i, _ in s], s.targets.tolist()) for s in sets))
    labels = raw / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(gzip.decompress(labels.read_bytes())[:-1] + b"\1"))
    refused("t10k-labels-idx1-ubyte.gz is not the published file", "fashion-mnist", root=tmp_path)


def python2(pickled, keys):
    """The keys as Python 2 wrote its strings, which is how the published files have them."""
    for key in keys:
        text = key.encode()
        pickled = pickled.replace(b"X" + len(text).to_bytes(4, "little") + text, b"U" + bytes([len(text)]) + text)
    return pickled


def test_cifar100_agrees_with_torchvision(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part, n in (("train", 5003), ("test", 4)):
        labels = {"fine_labels": RNG.integers(0, 100, n).tolist(), "coarse_labels": [0] * n}
        batch = {"data": RNG.integers(0, 256, (n, 3072), np.uint8), **labels}
        (folder / part).write_bytes(python2(pickle.dumps(batch, protocol=3), batch))
    monkeypatch.setitem(published.CHECKSUMS, "cifar100", {p: md5(folder / p) for p in ("train", "test")})
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(i) for i in range(100)]}))
    monkeypatch.setattr(theirs.CIFAR100, "meta", {**theirs.CIFAR100.meta, "md5": md5(folder / "meta")})
    for which in ("train", "test"):
        monkeypatch.setattr(theirs.CIFAR100, f"{which}_list", [[which, md5(folder / which)]])
    sets = [theirs.CIFAR100(str(tmp_path), train=train) for train in (False, True)]
    splits_of("cifar100", tmp_path, *((list(s.data), s.targets) for s in sets))


def test_svhn_agrees_with_torchvision(tmp_path, monkeypatch):
    from scipy.io import savemat

    sums = {}
    for part, n in (("train", 5002), ("test", 12)):
        path = tmp_path / f"{part}_32x32.mat"
        labels = np.arange(n, dtype=np.uint8)[:, None] % 10 + 1  # 10 is the digit 0
        savemat(path, {"X": RNG.integers(0, 256, (32, 32, 3, n), np.uint8), "y": labels})
        sums[path.name] = md5(path)
        monkeypatch.setitem(theirs.SVHN.split_list, part, ["", path.name, sums[path.name]])
    monkeypatch.setitem(published.CHECKSUMS, "svhn", sums)
    sets = [theirs.SVHN(str(tmp_path), split=part) for part in ("test", "train")]
    splits_of("svhn", tmp_path, *(([image for image, _ in s], s.labels.tolist()) for s in sets))
    assert set(load_dataset("svhn", root=tmp_path).y.tolist()) == set(range(10))


def test_published_checksums_are_torchvisions():
    for name, cls in (("cifar10", theirs.CIFAR10), ("cifar100", theirs.CIFAR100)):
        assert dict(map(tuple, cls.train_list + cls.test_list)) == published.CHECKSUMS[name]
    assert dict(theirs.FashionMNIST.resources) == published.CHECKSUMS["fashion-mnist"]
    assert {f: m for _, f, m in theirs.SVHN.split_list.values() if "extra" not in f} == published.CHECKSUMS["svhn"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("fashion-mnist", "FashionMNIST/raw/t10k-images-idx3-ubyte.gz is missing; put"),
        ("cifar100", "cifar-100-python/test is missing; unpack cifar-100-python.tar.gz"),
        ("svhn", "test_32x32.mat is missing; put"),
        ("cifar10-c/fog/3", r"CIFAR-10-C/fog.npy is missing; unpack CIFAR-10-C.tar \(zenodo"),
        ("cifar100-c/fog/3", "CIFAR-100-C/fog.npy is missing; unpack"),
        ("imagenet", r"imagenet/val/n09468604/ILSVRC2012_val_00015253.JPEG is missing and 4,999 more; put"),
        ("imagenet-c/fog/3", r"ImageNet-C/fog/3/n09468604/.* missing and 4,999 more"),
        ("folder:nowhere", "there is no folder"),
    ],
)
def test_missing_files_are_named_and_nothing_is_downloaded(tmp_path, name, file):
    refused(file, name, root=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10-c/fogg/3", "did you mean fog"),
        ("cifar10-c/fog/6", "must be 1, 2, 3, 4 or 5"),
        ("cifar10-c", "name the corruption and the severity"),
        ("imagenet/Res256", "did you mean Res224 or Res256Crop224"),
        ("fashionmnist", "did you mean fashion-mnist"),
        ("folder:", r"folder: names no folder; write folder:<path>"),
        ("folder:?resize=8", "names no folder; write folder:<path>"),
        ("folder:.?sice=3", "did you mean resize"),
        ("folder:.?resize=a", "must be a whole number"),
        ("folder:.?resize=8&crop=9", "larger than resize"),
        ("folder:.?mode=CMYK", "unknown mode"),
        ("folder:.?resize", "must be given once, with a value"),
    ],
)
def test_bad_names(name, words):
    refused(words, name)


# a folder of pictures


def write_pictures(folder, sizes=((6, 5),), classes=("cat", "dog"), n=3, ending="png"):
    for c in classes:
        (folder / c).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            shape = (*sizes[i % len(sizes)], 3)
            Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(folder / c / f"{(7 * i) % 10}.{ending}")
    return folder


@pytest.mark.parametrize("options", ["", "?resize=8&crop=6", "?crop=4"])
def test_folder_agrees_with_image_folder(tmp_path, options):
    folder = write_pictures(tmp_path / "own", sizes=((9, 12), (14, 7)) if "resize" in options else ((9, 12),))
    (folder / "dog" / "nested").mkdir()
    shutil.copy(folder / "cat" / "0.png", folder / "dog" / "nested" / "0.PNG")
    (folder / "dog" / "notes.txt").write_text("no picture")
    steps = [transforms.Resize(8)] if "resize" in options else []
    steps += [transforms.CenterCrop(int(options[-1]))] if options else []
    expected = theirs.ImageFolder(str(folder), transforms.Compose(steps))
    ours = load_dataset(f"folder:{folder}{options}")
    agree(ours, [image for image, _ in expected], expected.targets)
    info = dataset_info(f"folder:{folder}{options}")
    assert (info.shape, info.num_classes, info.splits) == (tuple(ours.x.shape[1:]), 2, {"test": 7})


def test_folder_revision_is_of_names_and_contents(tmp_path):
    folder = write_pictures(tmp_path / "own")
    copy = shutil.copytree(folder, tmp_path / "there" / "own")
    first = dataset_info(f"folder:{folder}").revision
    assert dataset_info(f"folder:{copy}").revision == first == dataset_info("folder:own", root=tmp_path).revision
    (copy / "cat" / "0.png").rename(copy / "cat" / "1.png")
    assert dataset_info(f"folder:{copy}").revision != first
    assert portable(f"folder:{folder}?crop=4") == portable(f"folder:{copy}/?crop=4") == "folder:own?crop=4"


def test_files_of_a_folder_are_those_that_it_lists_behind_links_too(tmp_path):
    folder = write_pictures(tmp_path / "own")
    shutil.move(folder / "cat", tmp_path / "cat")
    (folder / "cat").symlink_to(tmp_path / "cat")
    (folder / "dog" / "notes.txt").write_text("no picture")
    files = files_of(f"folder:{folder}", tmp_path)
    assert [str(path.relative_to(folder)) for path in files] == [
        f"{c}/{i}.png" for c in ("cat", "dog") for i in (0, 4, 7)
    ]


def test_large_files_are_hashed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_REMEMBERED", 10)
    monkeypatch.setattr(base, "cache_folder", lambda: tmp_path / "cache")
    file = tmp_path / "large"
    file.write_bytes(b"0" * 20)
    first = base.revision_of({"large": file})
    base._revision.cache_clear()
    monkeypatch.setattr(base, "_hash", lambda listing: "hashed again")
    assert base.revision_of({"large": file}) == first
    file.write_bytes(b"1" * 21)
    assert base.revision_of({"large": file}) == "hashed again"


def test_folder_with_splits(tmp_path):
    for split in ("train", "test"):
        write_pictures(tmp_path / split, n=10, classes=("a", "b", "c"))
    info = dataset_info(f"folder:{tmp_path}")
    assert info.splits == {"train": 27, "validation": 3, "test": 30}
    parts = [load_dataset(f"folder:{tmp_path}", s) for s in SPLITS]
    assert [len(p) for p in parts] == [27, 3, 30]
    assert len({sha for p in parts for sha in p.shas}) == 60
    shutil.copytree(tmp_path / "test", tmp_path / "val")
    assert dataset_info(f"folder:{tmp_path}").splits == {"train": 30, "validation": 30, "test": 30}
    shutil.rmtree(tmp_path / "val" / "a")  # the classes keep their numbers
    assert set(labels_of(f"folder:{tmp_path}", "validation")) == {1, 2}


def test_grey_folder(tmp_path):
    (tmp_path / "0").mkdir()
    x = RNG.integers(0, 256, (4, 5), np.uint8)
    Image.fromarray(x).save(tmp_path / "0" / "a.png")
    ours = load_dataset(f"folder:{tmp_path}?mode=L")
    assert torch.equal(ours.x[0, 0] * 255, torch.from_numpy(x).float())
    assert dataset_info(f"folder:{tmp_path}").shape == (3, 4, 5)
    write_pictures(tmp_path, sizes=((4, 5),), classes=("0",))
    refused("has colours .RGB., which mode=L would lose", f"folder:{tmp_path}?mode=L")


def test_folders_that_cannot_be_read(tmp_path):
    folder = write_pictures(tmp_path / "own", sizes=((6, 5), (6, 7)))
    refused(r"is 5x6 and .* is 7x6 pixels; add \?resize", f"folder:{folder}")
    refused("less than crop=9", f"folder:{folder}?crop=9")
    broken = folder / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    refused("0.png is no readable picture", f"folder:{folder}?crop=4")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    refused("holds no pictures", f"folder:{tmp_path}/empty")
    refused("has no train split", f"folder:{folder}?crop=4", "train")


# RobustBench


def test_corruptions_are_robustbenchs():
    from robustbench import data

    assert data.CORRUPTIONS == robustbench.CORRUPTIONS
    assert data.CORRUPTIONS_3DCC == robustbench.CORRUPTIONS_3D
    assert set(data.PREPROCESSINGS) - {None} == set(robustbench.PREPROCESSINGS)
    ids, classes = robustbench.imagenet_lists()
    assert (len(ids), sorted(classes), sorted(classes.values())) == (5000, list(classes), list(range(1000)))


@pytest.mark.parametrize("kind", ["cifar10-c", "cifar100-c"])
def test_corrupt_cifar_in_robustbenchs_layout(tmp_path, kind):
    from robustbench import data

    folder = tmp_path / {"cifar10-c": "CIFAR-10-C", "cifar100-c": "CIFAR-100-C"}[kind]
    folder.mkdir()
    images = RNG.integers(0, 256, (30000, 2, 2, 3), np.uint8)
    labels = RNG.integers(0, 10, 50000, np.uint8)
    np.save(folder / "fog.npy", images)
    np.save(folder / "labels.npy", labels)
    ours = load_dataset(f"{kind}/fog/3", root=tmp_path)
    loader = {"cifar10-c": data.load_cifar10c, "cifar100-c": data.load_cifar100c}[kind]
    theirs, of_theirs = loader(10_000, severity=3, data_dir=str(tmp_path), corruptions=("fog",))
    assert torch.equal(ours.x, theirs)
    assert torch.equal(ours.y, of_theirs)
    assert ours.y.tolist() == labels[:10000].tolist() == labels_of(f"{kind}/fog/3", "test", root=tmp_path)
    info = dataset_info(f"{kind}/fog/3", root=tmp_path)
    assert (info.shape, info.splits, info.revision) == ((3, 2, 2), {"test": 10000}, ours.revision)
    assert info.num_classes == (10 if kind == "cifar10-c" else 100)
    refused("has 30000 images, none of severity 4", f"{kind}/fog/4", root=tmp_path)
    (folder / "fog.npy").write_bytes((folder / "fog.npy").read_bytes()[:5000])
    refused("fog.npy is truncated or no .npy file", f"{kind}/fog/1", root=tmp_path)


def test_imagenet_through_robustbench(tmp_path, monkeypatch):
    from robustbench import data, loaders

    ids = ["n02/b.JPEG", "n01/a.JPEG", "n02/c.JPEG"]
    monkeypatch.setattr(robustbench, "imagenet_lists", lambda: (ids, {"n01": 0, "n02": 1}))
    monkeypatch.setattr(
        loaders, "make_custom_dataset", lambda root, _, number: [(f"{root}/{i}", number[i[:3]]) for i in ids]
    )

    def same(ours, folder, preprocessing):
        theirs = loaders.CustomImageFolder(str(folder), data.PREPROCESSINGS[preprocessing])
        for i, (x, y, _) in enumerate(theirs[k] for k in range(3)):
            assert torch.equal(ours.images([i])[0], x)
            assert int(ours.y[i]) == y

    for folder in (tmp_path / "imagenet/val", tmp_path / "ImageNet-C/fog/2"):
        for i in ids:
            (folder / i).parent.mkdir(parents=True, exist_ok=True)
            side = (260, 300, 3) if "val" in str(folder) else (224, 224, 3)
            Image.fromarray(RNG.integers(0, 256, side, np.uint8)).save(folder / i)
    crop = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    files = [Image.open(tmp_path / "imagenet/val" / i).convert("RGB") for i in ids]
    clean = load_dataset("imagenet", root=tmp_path)
    agree(clean, [crop(f) for f in files], [1, 0, 1])
    same(clean, tmp_path / "imagenet/val", "Res256Crop224")
    corrupt = load_dataset("imagenet-c/fog/2", root=tmp_path)
    agree(corrupt, [Image.open(tmp_path / "ImageNet-C/fog/2" / i) for i in ids], [1, 0, 1])
    same(corrupt, tmp_path / "ImageNet-C/fog/2", None)
    assert dataset_info("imagenet/Crop288", root=tmp_path).shape == (3, 288, 288)
    assert dataset_info("imagenet-c/fog/2", root=tmp_path).shape == (3, 224, 224)
    assert labels_of("imagenet", "test", root=tmp_path) == [1, 0, 1]
    (tmp_path / "imagenet/val/extra").mkdir()
    refused("must have the 2 class folders and no other; see extra", "imagenet", root=tmp_path)
