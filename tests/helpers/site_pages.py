"""Pages of a site as their elements, and the folders that tests make sites of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
from boards import ROOT
from fake_board import HOSTILE, deterministic, failed, line, result, stochastic, write

from bench.site.build import board_pages
from bench.site.collect import collect
from bench.site.plots import Plots
from bench.store.arrays import tables_of
from bench.store.folder import Store

VOID = ("meta", "link", "input", "br", "wbr", "rect", "img")
COMMITTED = [ROOT / "results" / name for name in ("digits-audit", "digits-gan")]


@dataclass
class Page(HTMLParser):
    """Elements of a page as (tag, attributes, text); `text` is of the element and those within."""

    source: str
    elements: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.open = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag):
        return [element for element in self.elements if element[0] == tag]

    @property
    def ids(self):
        return [attributes["id"] for _, attributes, _ in self.elements if "id" in attributes]


def pages(folder: Path) -> dict[str, Page]:
    return {file.relative_to(folder).as_posix(): Page(file.read_text()) for file in sorted(folder.rglob("*.html"))}


def write_board_pages(results: Path, site: Path) -> Path:
    """Write the pages of a large board into a site; its rows and their pictures, which take minutes, stay out."""
    contents, plots = collect([results], "purebench", gallery=0), Plots()
    (board,) = contents.boards
    texts = board_pages(contents, board, plots)
    for path, data in {**{path: text.encode() for path, text in texts.items()}, **plots.files}.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    return site / "b" / board.slug


def titled(folder: Path, title: str) -> Path:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("{", f'{{"title": "{title}", ', 1))
    return folder


def board_rows(page: Page):
    """Rows of the leaderboard: (label, {key: attributes of the cell and its "text"})."""
    heads = [attributes["data-k"] for _, attributes, _ in page.all("th") if "data-k" in attributes]
    rows = re.findall(r"<tr data-kind=.*?</tr>", page.source, re.DOTALL)
    found = []
    for text in rows:
        row = Page(text)
        cells = [(a, t) for tag, a, t in row.elements if tag in ("th", "td")]
        assert len(cells) == len(heads)
        found.append((cells[0][0]["title"], {k: {**a, "text": t} for k, (a, t) in zip(heads, cells, strict=True)}))
    return found


WONG = {
    "link": "https://arxiv.org/abs/2001.03994", "name": "Fast is better than free", "dataset": "cifar10",
    "architecture": "PreActResNet-18", "eps": "8/255", "clean_acc": "83.34", "reported": "46.06",
    "autoattack_acc": "43.21",
}  # fmt: skip


def model_info(folder: Path, entries=None) -> Path:
    """RobustBench's folder `model_info` of some entries, by what differs from that of Wong2020Fast."""
    (of_threat := folder / "model_info/cifar10/Linf").mkdir(parents=True)
    hard = {"Other": {"name": HOSTILE, "external": "46.1"}, "Silent": {"autoattack_acc": None}}
    for name, more in (entries or {"Wong2020Fast": {}, **hard}).items():
        (of_threat / f"{name}.json").write_text(json.dumps(WONG | more))
    return folder / "model_info"


def many(folder: Path, defenses: int, attacks: int) -> Path:
    """A board of deterministic defenses of 6 images each, in one part."""
    rows = []
    for i in range(defenses):
        name, right = f"defense {i:03}", [int((i >> j) % 3 != 0) for j in range(6)]
        rows.append(result(line(name, "none"), [1] * 6, size=0))
        rows += [result(line(name, f"attack {j}"), right) for j in range(attacks)]
    write(folder, [], [{k: v for k, v in r.line.items() if k in line("", "", training_seed=0)} for r in rows])
    tables = [tables_of(r.records, r.draws) for r in rows]
    whole = {name: pa.concat_tables([t[name] for t in tables]).unify_dictionaries() for name in tables[0]}
    Store(folder)._write_part("all-many-00000000", [r.line for r in rows], whole, {})
    return folder


def hostile(folder: Path) -> Path:
    """A board of names that do harm where they are not escaped."""
    names = [HOSTILE, "../../etc/passwd", "x" * 200, "index", "adp-images", "\u202eevil", "a/b", "A B", "a-b", "=1+1"]
    return write(folder, [r for name in names for r in (result(line(name, HOSTILE), [1, 0, 1, 0, 1, 1]),)])


def mixed(folder: Path) -> Path:
    """A board with complete, random, incomplete, failed and unsupported rows."""
    gap = [result(line("gap", "none"), [1] * 6), failed(line("gap", "apgd"), "error", "boom")]
    no = [result(line("no", "none"), [1] * 6), failed(line("no", "apgd"), "unsupported", "no gradients"),
          result(line("no", "square"), [1, 1, 0, 0, 1, 1])]  # fmt: skip
    return write(folder, [*deterministic(), *stochastic(), *gap, *no])
