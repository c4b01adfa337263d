"""Test that given images are judged under a row's own draws, refused where they are not the board's, and kept."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from boards import BOARD, purebench_here, write_board
from fake_board import HOSTILE
from judging import judge, refused

import bench
from bench import load_cells, load_draws, load_results, summary, worst_per_image
from bench.site.build import build_site
from bench.stats.proportions import wilson
from bench.store.manifest import read_manifest
from bench.store.reader import CHALLENGES
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError

N = 40
WEAK = BOARD.replace("first-60", f"first-{N}").partition("[[attack]]")[0] + '[[attack]]\nname = "{models}:still"\n'


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A board without a real attack; return (folder of the models, results, images of a sign step on `linear`)."""
    folder = tmp_path_factory.mktemp("board")
    path, out = write_board(folder, WEAK + 'label = "still"\n'), folder / "out"
    done = purebench_here("run", path, "--out", out, "--quiet", "--workers", 0)
    assert done.returncode == 0, done.stderr
    space: dict = {}
    exec(compile((folder / "models.py").read_text(), "models", "exec"), space)
    data = load_dataset("digits")
    x = data.x[:N].clone().requires_grad_()
    torch.nn.functional.cross_entropy(space["linear"]()(x), data.y[:N]).backward()
    return folder, out, (x + 0.1 * x.grad.sign()).clamp(0, 1).detach().numpy()


def save(folder, x, **more):
    np.savez(folder / "sign.npz", x_adv=x, **more)
    return folder / "sign.npz"


def challenge(board, file, *arguments, defense="linear", out=None):
    where = out or board[1]
    return purebench_here("challenge", where, "--defense", defense, "--images", file, "--code", board[0], *arguments)


def worst(folder, defense):
    frame = worst_per_image(folder)
    return frame[frame["defense"] == defense].set_index("image")["robust"]


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".locks" not in p.parts}


def test_python_says_what_the_command_says(board, tmp_path):
    told = challenge(board, save(tmp_path, board[2])).stdout.strip()
    for images in (torch.from_numpy(board[2]), board[2], tmp_path / "sign.npz"):
        found = bench.challenge_row(board[1], "linear", images, name="sign", code=board[0])
        assert str(found) == told
        assert 0 <= found.after.low <= found.after.value <= found.before.value
    with pytest.raises(UserError, match="outside the ball"):
        bench.challenge_row(board[1], "linear", 1 - board[2], code=board[0])
    for bad in ([1, "a"], object()):
        with pytest.raises(UserError, match="give a tensor or NumPy array of numbers"):
            bench.challenge_row(board[1], "linear", bad, code=board[0])
    with pytest.raises(UserError, match="kept with their origin"):
        bench.challenge_row(board[1], "linear", board[2], code=board[0], kept_for=("A. Author", ""))
    out = shutil.copytree(board[1], tmp_path / "out")
    kept = bench.challenge_row(out, "linear", board[2], code=board[0], kept_for=("A. Author", "https://example.org"))
    assert worst(out, "linear").mean() == kept.after.value


@pytest.mark.parametrize("defense", ["linear", "noisy"])
def test_the_verdict_is_that_of_judge(board, tmp_path, defense):
    """The line says what the worst of the board's attacks and of the same images under `purebench judge` is."""
    before, file = snapshot(board[1]), save(tmp_path, board[2])
    done = challenge(board, file, defense=defense)
    assert done.returncode == 0, done.stderr
    assert snapshot(board[1]) == before
    old = worst(board[1], defense)
    if defense == "noisy":
        assert judge(board, file, "--out", tmp_path / "judged").returncode == 0
        given = load_results(tmp_path / "judged").query("attack == 'sign'").set_index("image")
        clean = load_results(board[1]).query("defense == 'noisy' and attack == 'none'").set_index("image")
        harder = given["correct_sel"] < clean["correct_sel"]
        assert harder.sum() > 5
    found = re.fullmatch(
        rf"{defense} at Linf 1/10: (\S+) % -> (\S+) % \[(\S+), (\S+)\]: (\d+) images? falls?\n", done.stdout
    )
    assert found, done.stdout
    shutil.copytree(board[1], tmp_path / "kept")
    kept = challenge(board, file, "--keep", "--author", "A", "--link", "L", defense=defense, out=tmp_path / "kept")
    assert kept.returncode == 0, kept.stderr
    new = worst(tmp_path / "kept", defense)
    low, high = wilson(new.mean() * N, N)
    expected = [f"{100 * v:.1f}" for v in (old.mean(), new.mean(), low, high)]
    assert [*found.groups()[:4]] == expected
    assert int(found[5]) == int(((old > 0.5) & (new <= 0.5)).sum()) > 0
    if defense == "noisy":  # the same draws, to the bit
        ours = load_results(tmp_path / "kept").query("attack == 'given:sign'").set_index("image")
        assert ours["correct"].tolist() == given["correct"].tolist()
        assert set(ours["cell"]) == set(given["cell"])
        draws = [load_draws(f).query(f"attack == '{a}'") for f, a in (("kept", "given:sign"), ("judged", "sign"))
                 for f in [tmp_path / f]]  # fmt: skip
        assert draws[0][["image", "draw", "pred", "margin"]].values.tolist() == (
            draws[1][["image", "draw", "pred", "margin"]].values.tolist()
        )


def test_clean_images_change_nothing(board, tmp_path):
    done = challenge(board, save(tmp_path, load_dataset("digits").x[:N].numpy()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("given:sign changes nothing\n")


def test_the_order_of_the_file_does_not_matter_with_an_index(board, tmp_path):
    plain = challenge(board, save(tmp_path, board[2]))
    index = np.arange(N)[::-1].copy()
    labels = load_dataset("digits").y[:N].numpy()[::-1]
    assert challenge(board, save(tmp_path, board[2][::-1], index=index, y=labels)).stdout == plain.stdout


def test_kept_images_count_from_then_on(board, tmp_path):
    out, file = tmp_path / "out", save(tmp_path, board[2])
    shutil.copytree(board[1], out)
    plan, keys = (out / "plan.jsonl").read_bytes(), set(load_cells(out)["key"])
    origin = ("--keep", "--author", "Ada", "--link", "https://example.org/x")
    done = challenge(board, file, *origin, out=out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == f"given:sign is kept in {out}"
    assert (out / "plan.jsonl").read_bytes() == plan
    cells = load_cells(out)
    assert keys < set(cells["key"])
    given = cells[cells["attack"] == "given:sign"]
    assert len(given) == 2
    assert set(given["view"]) == {"given"}
    assert "images of Ada, https://example.org/x" in given["notes"].iloc[0]
    frame = summary(out)
    row = frame[(frame["defense"] == "linear") & (frame["attack"] == "worst case")].iloc[0]
    assert row["robust_mean"] == worst(out, "linear").mean() < worst(board[1], "linear").mean()
    assert frame[(frame["defense"] == "noisy") & (frame["attack"] == "worst case")].iloc[0]["status"] == "ok"
    assert "given:sign" in purebench_here("table", out).stdout
    assert len(read_manifest(out)["runs"]) == 2

    before = snapshot(out)  # a second time nothing is written
    again = challenge(board, file, *origin, out=out)
    assert again.stdout.splitlines()[0].endswith("given:sign changes nothing")
    assert again.stdout.splitlines()[1] == f"given:sign was kept already in {out}"
    assert snapshot(out) == before
    refused(challenge(board, save(tmp_path, (board[2] + load_dataset("digits").x[:N].numpy()) / 2), *origin, out=out),
            "other images are on record as given:sign")  # fmt: skip
    # the board goes on, and its worst case still counts the images
    assert purebench_here("run", board[0] / "small.toml", "--out", out, "--quiet", "--workers", 0).returncode == 0
    assert worst(out, "linear").mean() == row["robust_mean"]
    verified = purebench_here("verify", out, "--code", board[0], "--quiet")
    assert verified.stdout.splitlines()[-1].startswith("14 of 14 cells agree in every draw")
    merged = purebench_here("merge", out, board[1], "--out", tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr
    assert worst(tmp_path / "merged", "linear").mean() == row["robust_mean"]
    told = json.loads(purebench_here("diff", board[1], out, "--json").stdout)
    assert told["cells"]["only_new"] == 2
    (out / CHALLENGES).write_text("{")
    refused(purebench_here("table", out), "challenges.jsonl is damaged")


@pytest.mark.parametrize(
    "name", [HOSTILE, "../../etc/passwd", "x" * 200, "\u202eevil", "=1+1"], ids=["html", "path", "long", "rtl", "sum"]
)
def test_hostile_names_of_images_authors_and_links_do_no_harm(board, tmp_path, name):
    out, file = tmp_path / "out", save(tmp_path, board[2])
    shutil.copytree(board[1], out)
    beside, origin = sorted(tmp_path.iterdir()), ("--keep", "--name", name, "--author", name, "--link", name)
    said = [challenge(board, file, *origin, out=out) for _ in range(2)]
    assert [(done.returncode, done.stderr) for done in said] == [(0, "")] * 2
    other = challenge(board, save(tmp_path, (board[2] + load_dataset("digits").x[:N].numpy()) / 2), *origin, out=out)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    said += [other, purebench_here("table", out)]
    assert said[-1].returncode == 0
    assert all((done.stdout + done.stderr).replace("\n", "").isprintable() for done in said)
    assert sorted(tmp_path.iterdir()) == beside
    assert f"given:{name}" in set(load_cells(out)["attack"])
    build_site([out], tmp_path / "site")
    pages = [page.read_text() for page in (tmp_path / "site").rglob("*.html")]
    assert any("given:" in page for page in pages)
    for page in pages:
        assert "<script>alert" not in page
        assert "javascript:" not in "".join(re.findall(r'(?:href|src)="([^"]*)"', page))
    assert all(of.isprintable() and ".." not in of for of in (p.name for p in (tmp_path / "site").rglob("*")))


def test_images_that_are_not_the_boards_are_refused(board, tmp_path):
    x = board[2]
    far = x.copy()
    far[3] = np.clip(load_dataset("digits").x[3].numpy() + 0.2, 0, 1)
    for images, more, words in [
        (x[:-1], {}, (f"holds {N - 1} images; the board has {N}",)),
        (far, {}, ("image 3 of", "lies 0.2 from image 3 of digits in Linf, outside the ball of 1/10")),
        (x[::-1], {}, ("outside the ball of 1/10: give the images of the board in its order",)),
        (np.clip(x + 2e-5 * np.sign(x - load_dataset("digits").x[:N].numpy()), 0, 1), {}, ("outside the ball",)),
        (x * 3, {}, ("images must lie in [0, 1]",)),
        (x[:, :, :4], {}, ("has images of 1x4x8; those of the board are 1x8x8",)),
        (x, {"index": np.arange(1, N + 1)}, ("lacks image 0 of the board",)),
        (x, {"y": (load_dataset("digits").y[:N].numpy() + 1) % 10}, ("y of image 0 is",)),
    ]:
        refused(challenge(board, save(tmp_path, np.clip(images, 0, 3), **more)), *words)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    for file, arguments, words in [
        (tmp_path / "bad.npz", {}, ("bad.npz is damaged",)),
        (tmp_path / "gone.npz", {}, ("gone.npz is missing",)),
        (save(tmp_path, x), {"defense": "other"}, ('unknown defense in these results "other"',)),
        (save(tmp_path, x), {"out": tmp_path}, ("is no results folder",)),
    ]:
        refused(challenge(board, file, **arguments), *words)
    refused(challenge(board, save(tmp_path, x), "--eps", "1/3"), "was judged at Linf 1/10; name one of them")
    refused(challenge(board, save(tmp_path, x), "--keep"), "add --author NAME --link ADDRESS")
    refused(challenge(board, save(tmp_path, x), "--author", "A"), "add --keep")
    changed = tmp_path / "code"
    shutil.copytree(board[0], changed, ignore=shutil.ignore_patterns("out"))
    text = (changed / "models.py").read_text().replace("10 * means", "11 * means")
    (changed / "models.py").write_text(text)
    refused(challenge((changed, board[1]), save(tmp_path, x)), "linear is not the defense that was judged")
