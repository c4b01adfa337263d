"""Test that `purebench judge` judges precomputed images as a board judges those of its attacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from boards import purebench_here, write_board
from judging import X, judge, refused
from safetensors.numpy import load_file, save_file

from bench import load_results
from bench.analysis.results import load_cells, load_draws
from defenses.data.dataset import load_dataset

SAME = ["correct", "draws", "correct_sel", "draws_sel", "margin", "linf", "l2", "l1", "l0", "status"]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Run a board; return (folder of the models, results, adversarial images of `noisy` by attack)."""
    folder = tmp_path_factory.mktemp("board")
    path, out = write_board(folder), folder / "out"
    assert purebench_here("run", path, "--out", out, "--quiet").returncode == 0
    cells = load_cells(out)
    part = next(out.glob("parts/all-noisy-*"))
    held = load_file(part / "adversarial.safetensors")
    images = {
        attack: np.concatenate([held[k] for k in rows["key"]])
        for attack, rows in cells[cells["defense"] == "noisy"].groupby("attack")
    }
    return folder, out, images


def compared(frame, attack):
    return frame[frame["attack"] == attack].sort_values("image")[SAME].reset_index(drop=True)


def test_judged_images_have_the_verdict_of_the_board(board, tmp_path):
    """Judge two files of one board: the null attacks and all results equal the board's, to the bit."""
    _, out, images = board
    labels = load_dataset("digits").y[:60].numpy()
    for name in ("slow", "autoattack:apgd-ce"):
        file = tmp_path / f"{name.replace(':', '-')}.npz"
        np.savez(file, x_adv=images[name], y=labels)
    done = judge(board, tmp_path / "slow.npz", tmp_path / "autoattack-apgd-ce.npz", "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    ours, theirs = load_results(tmp_path / "judged"), load_results(out).query("defense == 'noisy'")
    for here, there in (("none",) * 2, ("uniform",) * 2, ("slow",) * 2, ("autoattack-apgd-ce", "autoattack:apgd-ce")):
        assert compared(ours, here).equals(compared(theirs, there))
    for frame in (ours, theirs):
        assert len(frame) == 240
    nulls = [set(f.loc[f["attack"].isin(["none", "uniform"]), "cell"]) for f in (ours, theirs)]
    assert nulls[0] == nulls[1]
    mine, board_draws = (load_draws(f).query("attack == 'slow'") for f in (tmp_path / "judged", out))
    of_noisy = board_draws[board_draws["defense"] == "noisy"]
    assert mine[["image", "draw", "pred", "margin"]].values.tolist() == (
        of_noisy[["image", "draw", "pred", "margin"]].values.tolist()
    )
    assert set(ours.loc[ours["attack"] == "slow", "view"]) == {"given"}
    verified = purebench_here("verify", tmp_path / "judged", "--code", board[0], "--quiet")
    assert verified.stdout.splitlines()[-1].startswith("12 of 12 cells agree in every draw")
    table = purebench_here("table", tmp_path / "judged").stdout
    assert "worst case" in table
    assert "slow" in table


def test_the_form_of_the_file_and_its_name_make_no_difference(board, tmp_path):
    """Store an array in many formats: the key is the same, so only the first is judged."""
    x, index = board[2]["slow"][:20], np.arange(20)
    np.savez(tmp_path / "one.npz", x_adv=x, index=index)
    np.savez_compressed(tmp_path / "two.npz", x=x[::-1].transpose(0, 2, 3, 1).astype(np.float64), index=index[::-1])
    np.save(tmp_path / "three.npy", x)
    torch.save({"adv_complete": torch.from_numpy(x)}, tmp_path / "four.pt")
    torch.save(torch.from_numpy(x), tmp_path / "five.pth")
    save_file({"x_adv": x, "index": index}, tmp_path / "six.safetensors")
    keys = set()
    for name in ("one.npz", "two.npz", "three.npy", "four.pt", "five.pth", "six.safetensors"):
        done = judge(board, tmp_path / name, "--label", "mine", "--out", tmp_path / "judged")
        assert done.returncode == 0, done.stderr
        keys.add(frozenset(load_cells(tmp_path / "judged")["key"]))
    assert len(keys) == 1
    assert len(list((tmp_path / "judged" / "parts").glob("*-*"))) == 1


def test_images_by_index_by_list_and_by_their_pixels(board, tmp_path):
    chosen = [41, 7, 23, 55]
    x, clean = board[2]["slow"][chosen], load_dataset("digits").x.numpy()[chosen]
    np.savez(tmp_path / "index.npz", x_adv=x, index=chosen)
    np.savez(tmp_path / "plain.npz", x_adv=x)
    np.savez(tmp_path / "clean.npz", x=clean)
    (tmp_path / "list.txt").write_text("\n".join(map(str, chosen)))
    ways = {
        "index": ["index.npz"],
        "list": ["plain.npz", "--indices", tmp_path / "list.txt"],
        "clean": ["plain.npz", "--clean", tmp_path / "clean.npz"],
    }
    expected = load_results(board[1]).query("defense == 'noisy' and attack == 'slow'").set_index("image")
    for name, (file, *more) in ways.items():
        done = judge(board, tmp_path / file, *more, "--label", "mine", "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        frame = load_results(tmp_path / name).query("attack == 'mine'").set_index("image")
        assert sorted(frame.index) == sorted(chosen)
        for column in ("correct", "correct_sel", "linf"):
            assert frame[column].loc[chosen].tolist() == expected[column].loc[chosen].tolist()


def test_images_of_a_results_folder_on_another_defense(board, tmp_path):
    """Images made on one defense are judged on another."""
    part = next(board[1].glob("parts/all-linear-*"))
    done = judge(board, part / "adversarial.safetensors", "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    cells = load_cells(tmp_path / "judged")
    assert {"slow on linear (exact)", "autoattack:apgd-ce on linear (exact)"} < set(cells["attack"])
    refused(judge(board, part / "adversarial.safetensors", "--eps", "1/5", "--out", tmp_path / "x"), "at Linf 1/5")


def test_images_beyond_the_ball_are_errors_unless_they_minimise(board, tmp_path):
    x = board[2]["slow"][:20].copy()
    x[3] = np.clip(load_dataset("digits").x[3].numpy() + 0.2, 0, 1)
    np.save(tmp_path / "far.npy", x)
    done = judge(board, tmp_path / "far.npy", "--out", tmp_path / "strict")
    assert done.returncode == 2
    assert "left the Linf ball: 0.2 > 0.1" in done.stderr
    frame = load_results(tmp_path / "strict").query("attack == 'far'").set_index("image")
    assert frame["accuracy"].isna().sum() == 1
    assert frame["status"][3] == "error"
    done = judge(board, tmp_path / "far.npy", "--minimisation", "--out", tmp_path / "lenient")
    assert done.returncode == 0
    frame = load_results(tmp_path / "lenient").set_index(["attack", "image"])
    assert frame["beyond"]["far", 3]
    assert frame["correct"]["far", 3] == frame["correct"]["none", 3]


def test_bytes_are_divided_by_255_and_it_is_said(board, tmp_path):
    x = (load_dataset("digits").x[:20].numpy() * 255).round().astype(np.uint8)
    np.save(tmp_path / "bytes.npy", x)
    done = judge(board, tmp_path / "bytes.npy", "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    assert "x_adv is uint8: divided by 255" in done.stderr
    assert load_results(tmp_path / "judged").query("attack == 'bytes'")["linf"].max() <= 0.5 / 255 + 1e-6


def test_clean_images_are_said_to_be_clean(board, tmp_path):
    x = load_dataset("digits").x[:40].numpy()
    np.save(tmp_path / "clean.npy", x)
    done = judge(board, tmp_path / "clean.npy", "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    note = "note: clean: every image is the clean one, so nothing was attacked"
    of_model, of_images = done.stderr.splitlines()
    assert of_images == note
    assert of_model.startswith("note: the test split of digits is a permutation")  # the models are a user's
    lines = load_cells(tmp_path / "judged").set_index("attack")["notes"]
    assert lines["clean"].tolist() == [["its images are the clean ones"]] * 2
    assert "its images are the clean ones" in purebench_here("table", tmp_path / "judged").stdout
    x[25, 0, 4, 4] += np.where(x[25, 0, 4, 4] > 0.5, -0.01, 0.01)
    np.save(tmp_path / "nearly.npy", x)
    done = judge(board, tmp_path / "nearly.npy", "--out", tmp_path / "other")
    assert (done.returncode, done.stderr.splitlines()) == (0, [of_model])


def test_the_folder_of_another_board_is_refused(board, tmp_path):
    np.savez(tmp_path / "far.npz", x_adv=X[:2], index=[3, 9])
    before = sorted(board[1].rglob("*"))
    refused(judge(board, tmp_path / "far.npz", "--out", board[1]), 'of the board "small"')
    assert sorted(board[1].rglob("*")) == before


def test_given_images_as_a_row_of_a_board(board, tmp_path):
    """An attack "given:file" of a board; where the file lacks an image, that block is an error."""
    save_file({"x_adv": board[2]["slow"][:40], "index": np.arange(40)}, tmp_path / "theirs.safetensors")
    path = write_board(tmp_path)
    text = path.read_text().split("[[attack]]")[0].replace("/models.py:noisy", "/models.py:linear")
    path.write_text(
        text.split("[[defense]]")[0]
        + f'[[defense]]\nname = "{board[0]}/models.py:noisy"\nlabel = "noisy"\n'
        + f'[[attack]]\nname = "given:{tmp_path}/theirs.safetensors"\nlabel = "theirs"\n'
    )
    done = purebench_here("run", path, "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 2
    assert "theirs.safetensors has no image 40 of the data set" in done.stderr
    ours = load_results(tmp_path / "out").query("attack == 'theirs' and status == 'ok'")
    theirs = load_results(board[1]).query("defense == 'noisy' and attack == 'slow' and image < 40")
    assert ours.sort_values("image")["correct"].tolist() == theirs.sort_values("image")["correct"].tolist()


def test_arrays_of_other_names_are_refused(board, tmp_path):
    x = load_dataset("digits").x[:3].numpy()
    y = load_dataset("digits").y[:3].numpy()
    for arrays, words in (
        ({"x": x, "adv": x}, "holds adv beside x"),
        ({"x_adv": x, "target": y}, "holds target beside x_adv"),
        ({"x_adv": x, "labels": y[::-1]}, "y of image 0"),
    ):
        np.savez(tmp_path / "mixed.npz", **arrays)
        done = judge(board, tmp_path / "mixed.npz", "--out", tmp_path / "out")
        assert done.returncode == 2
        assert words in done.stderr
        assert not (tmp_path / "out").exists()
