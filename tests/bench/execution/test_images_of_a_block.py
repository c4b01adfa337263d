"""Boards over folders: what a process reads and holds, pictures that cannot be decoded, folders that change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from boards import purebench_here
from large_folders import write_board, write_pictures
from PIL import Image
from process_memory import watched

from bench.analysis.results import load_cells
from bench.board.load import load_board
from bench.execution.attack_and_judge import execute
from bench.execution.cell_runner import CellRunner
from bench.execution.options import Options
from defenses.core.defense import UserModule
from defenses.data import images as pictures
from defenses.utils.errors import UserError

ABOVE = 300  # MiB that a process may hold above its imports, whatever the number of images
NET = """
import torch
from pathlib import Path

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 3)
        self.head.weight.data = 9 * torch.eye(3)
        self.head.bias.data.zero_()
        self.eval()

    def forward(self, x):
        return self.head(x.mean((2, 3)))

def spoils(view, x, y, *, indices, **_):
    if int(indices[0]) == 10:
        path = next(Path(__file__).with_name("own").glob("2/*29.png"))
        path.write_bytes(path.read_bytes() + b"0")
    return x.clone()
"""
BOARD = """
dataset = "folder:{folder}"
indices = "{indices}"
block = 10
threat = {{ norm = "Linf", eps = "1/100" }}
defense = [{{ name = "{net}:Net", label = "net" }}]
attack = [{{ name = "{attack}", label = "attack" }}]
"""


def written(folder: Path, indices: str = "all", attack: str = "foolbox:FGSM") -> Path:
    """A board over 30 pictures, a class a block."""
    rng = np.random.default_rng(0)
    for i in range(30):
        path = folder / "own" / str(i // 10) / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    (folder / "net.py").write_text(NET)
    text = BOARD.format(folder=folder / "own", indices=indices, net=folder / "net.py", attack=attack)
    (folder / "board.toml").write_text(text)
    return folder / "board.toml"


def ran(folder: Path, path: Path):
    """The exit code, the lines of errors, and the cells."""
    done = purebench_here("run", path, "--out", folder / "out", "--workers", "0", "--quiet")
    lines = [line for line in done.stderr.splitlines() if line.startswith("purebench:")]
    return done.returncode, lines, load_cells(folder / "out")


def test_a_board_decodes_the_pictures_of_its_index_list_alone(tmp_path, monkeypatch):
    names, real = [], pictures.open_picture
    monkeypatch.setattr(
        pictures, "open_picture", lambda path, s=None: (names.append(Path(path).stem), real(path, s))[1]
    )
    code, _, cells = ran(tmp_path, written(tmp_path, "first-20"))
    assert code == 0
    assert len(cells) == 6
    assert set(names) == {f"{i:02}" for i in range(20)}
    assert names.count("19") == 3  # once a cell


def test_a_picture_that_cannot_be_decoded_is_an_error_of_its_cells(tmp_path):
    path = written(tmp_path)
    for i in (0, 13):
        broken = tmp_path / "own" / str(i // 10) / f"{i:02}.png"
        mended = broken.read_bytes()
        broken.write_bytes(broken.read_bytes()[:60])
    code, _, cells = ran(tmp_path, path)
    assert code == 2
    assert len(cells) == 9
    for block, file in ((0, "0/00.png"), (10, "1/13.png")):
        failed = cells[cells["block"] == block]
        assert set(failed["status"]) == {"error"}
        assert all(f"{file} is no readable picture" in error for error in failed["error"])
    assert set(cells[cells["block"] == 20]["status"]) == {"ok"}
    broken.write_bytes(mended)
    told = purebench_here("run", path, "--out", tmp_path / "out", "--workers", "0", "--quiet").stderr
    assert "note: 3 cells finished for an earlier revision of folder:own\n" in told


def test_a_folder_that_changes_during_a_run_ends_it_with_what_is_finished(tmp_path):
    path = written(tmp_path, attack=f"{tmp_path / 'net.py'}:spoils")
    code, lines, cells = ran(tmp_path, path)
    assert code == 2
    assert len(lines) == 1
    assert "2/29.png changed while the data set was read" in lines[0]
    assert len(cells.query("status == 'ok'")) == 8  # all but the attack on the last block
    assert set(cells.query("status != 'ok'")["status"]) <= {"missing"}


def test_a_process_that_finds_another_folder_than_the_board_refuses_it(tmp_path):
    loaded = load_board(written(tmp_path))
    cell = loaded.cells()[0]
    (tmp_path / "own" / "2" / "29.png").unlink()
    with pytest.raises(UserError, match=r"own changed while the board ran; .* repeat the command$"):
        CellRunner(loaded.images, Options()).block(cell)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_does_not_grow_with_the_folder(tmp_path):
    """2,000 pictures of 224 x 224 would take 1,150 MiB; tests/large/images.py has 50,000."""
    assert write_pictures(tmp_path / "pictures", files=20, names=100, classes=10) == 2000
    path = write_board(tmp_path, tmp_path / "pictures", "random-100-seed0", classes=10, block=25)
    found = watched("run", path, "--workers", 1, "--out", "out", "--quiet", cwd=tmp_path, mark="out/parts/cell-*")
    assert found.code == 0, found.output
    assert len(found.workers) == 1
    assert len(found.above) == 2
    assert max(found.above.values()) <= ABOVE, found


def test_what_a_model_writes_to_its_input_is_not_stored(tmp_path):
    """Nor does the layout in which an attack returns its images reach the model."""
    board = load_board(written(tmp_path))
    cell, runner = board.cells()[0], CellRunner(board.images, Options())
    block, layouts = runner.block(cell), []

    class Writes(torch.nn.Module):
        def forward(self, x):
            layouts.append(x.is_contiguous())
            return x.mul_(0.5).mean((2, 3))

    given = block.x.contiguous(memory_format=torch.channels_last)
    before = given.clone()
    found = execute(cell, UserModule(Writes(), stochastic=False, num_classes=3), block, 3, x_adv=given)
    assert torch.equal(torch.from_numpy(found.adversarial), before)
    assert layouts
    assert all(layouts)
