"""Folders of very many pictures, most of them further names of a few files, and a board over them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

NET = '''
import torch

class Net(torch.nn.Module):
    """A small network for images of any size."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = torch.nn.Conv2d(3, 8, 8, stride=8)
        self.head = torch.nn.Linear(8, CLASSES)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 10
        self.eval()

    def forward(self, x):
        return self.head(self.features(x).relu().mean((2, 3)))
'''
BOARD = """
name = "large"
dataset = "{dataset}"
indices = "{indices}"
block = {block}
threat = {{ norm = "Linf", eps = "4/255" }}
defense = [{{ name = "{net}:Net", label = "net" }}]
attack = [{{ name = "bench:pgd", params = {{ steps = 2 }} }}]
"""


def write_pictures(folder: Path, files: int, names: int, classes: int = 100, side: int = 224) -> int:
    """Generate pictures, each hard-linked under several names, in folders of classes; return their number."""
    rng, made = np.random.default_rng(0), folder / "0000"
    for c in range(classes):
        (folder / f"{c:04}").mkdir(parents=True)
    for i in range(files):
        coarse = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)).resize((side, side))
        values = np.asarray(coarse, np.int16) + rng.integers(-8, 9, (side, side, 3), np.int16)
        first = made.with_name(f"{i % classes:04}") / f"{i:05}-000.png"
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(first, compress_level=1)
        for j in range(1, names):
            os.link(first, first.with_name(f"{i:05}-{j:03}.png"))
    return files * names


def write_board(
    folder: Path, pictures: Path, indices: str, classes: int = 100, block: int = 50, corruption: str = ""
) -> Path:
    """Write the board, over the pictures or a corruption of them, and its network."""
    (folder / "net.py").write_text(NET.replace("CLASSES", str(classes)))
    board = folder / "large.toml"
    dataset = f"corrupted:folder:{pictures}/{corruption}" if corruption else f"folder:{pictures}"
    board.write_text(BOARD.format(dataset=dataset, indices=indices, net=folder / "net.py", block=block))
    return board
