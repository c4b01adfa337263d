"""The READMEs do what they say: code blocks run, commands parse, generated parts and links are up to date."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from boards import ROOT
from tools.readme_results import row
from tools.readmes import COMMAND, PART, PARTS, READMES, renewed

import bench
from bench.analysis.claim_files import read_claims
from bench.board.load import read_board
from bench.cli.main import build_parser
from bench.submissions.card import card_problems

PAGES = (*READMES, "CONTRIBUTING.md")
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SET_UP = ["pip install uv && uv run purebench run quickstart", "uv run pytest -n 2"]
# Commands that are run; others take long, write, or need files of the reader's, and are parsed alone.
RUN = ("ls", "plan", "status", "table", "compare", "detect", "model-info export")
SCRIPT = re.compile(r"python ([\w/]+\.py)")


def blocks(page: str, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(TEXT[page]) if found == language]


def shell_lines(page: str) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split("  #")[0].split(" # ")[0].split()) for line in lines if line.split("#")[0].strip()]


def commands(page: str) -> list[list[str]]:
    """The purebench commands of a page's shell blocks, as arguments."""
    parts = [part.strip() for line in shell_lines(page) for part in line.split("&&")]
    parts = [part.removeprefix("uv run ").removeprefix("--no-sync ") for part in parts]
    return [shlex.split(part)[1:] for part in parts if part.startswith("purebench ")]


def spans(page: str) -> list[list[str]]:
    """The purebench commands in the text of a page, as arguments; those with a placeholder for the command apart."""
    text = re.sub(r"\s+", " ", BLOCK.sub("", TEXT[page]))
    found = [shlex.split(span)[1:] for span in re.findall(r"`(purebench [^`]+)`", text)]
    return [arguments for arguments in found if not arguments[0].isupper()]


def save_files(page: str, folder: Path) -> None:
    """Write the blocks that begin with the name of a file."""
    for language in ("python", "toml"):
        for code in blocks(page, language):
            if named := re.match(r"# (\w+\.(?:py|toml))\n", code):
                (folder / named[1]).write_text(code, encoding="utf-8")


@pytest.mark.parametrize("page", READMES)
def test_generated_parts_are_up_to_date(page):
    assert TEXT[page] == renewed(TEXT[page]), f"{page} is out of date: run {COMMAND}"


def test_every_part_stands_in_a_page():
    assert {name for page in READMES for _, name, _, _ in PART.findall(TEXT[page])} == set(PARTS)


def test_every_page_of_a_folder_is_tested():
    listed = subprocess.run(["git", "ls-files", "*README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) <= set(READMES)


def test_the_front_page_is_short():
    """Words of text and tables: without code blocks, comments and the addresses of links."""
    text = re.sub(r"<!--.*?-->", "", BLOCK.sub("", TEXT["README.md"]))
    words = re.sub(r"\]\([^)]*\)", "]", text).replace("|", " ").split()
    assert 800 <= sum(bool(re.search(r"\w", word)) for word in words) <= 1000


def test_the_set_up_commands_come_first():
    assert shell_lines("README.md")[:2] == SET_UP
    assert shell_lines("CONTRIBUTING.md")[0] == "pip install uv"
    assert "uv run pytest -n 2" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_only_languages_that_are_tested(page):
    assert {language for language, _ in BLOCK.findall(TEXT[page])} <= {"python", "bash", "toml"}
    assert TEXT[page].count("```") == 2 * len(BLOCK.findall(TEXT[page]))


@pytest.mark.parametrize(("page", "number"), [(page, n) for page in PAGES for n in range(len(blocks(page, "python")))])
def test_python_blocks_run(page, number, tmp_path, monkeypatch, capsys):
    """Lines after `# >` are what a block prints. In this process: most of the time goes into imports."""
    save_files(page, tmp_path)
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    code = blocks(page, "python")[number]
    exec(compile(code, f"{page}, block {number}", "exec"), {"__name__": "__main__"})
    expected = [line.removeprefix("# >").strip() for line in code.splitlines() if line.startswith("# >")]
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert not expected or printed == expected


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_toml_blocks_are_boards_or_parts_of_one_or_claims_or_cards(page, tmp_path, monkeypatch):
    save_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "toml"):
        raw = tomllib.loads(code)
        if "summary" in raw:
            (tmp_path / "card.toml").write_text(code)
            assert list(card_problems(tmp_path / "card.toml", "mine")) == []
            continue
        if "claims" in raw:
            (tmp_path / "claims.toml").write_text(code)
            assert read_claims(tmp_path / "claims.toml")
            continue
        rest = {"dataset": "digits"} | ({} if "preset" in raw else {"threat": {"norm": "Linf", "eps": "1/5"}})
        rest |= {"defense": [{"name": "adp"}]} | ({} if "preset" in raw else {"attack": [{"name": "bench:pgd"}]})
        assert read_board(rest | raw, "block").cells()


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_blocks_parse(page, capsys):
    parser = build_parser()
    for arguments in commands(page):
        try:
            parser.parse_args(arguments)
        except SystemExit:
            pytest.fail(f"purebench {shlex.join(arguments)}: {capsys.readouterr().err}")
    for script in SCRIPT.findall("\n".join(shell_lines(page))):
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_text_parse(page, capsys):
    """A command may be named without what it needs."""
    parser = build_parser()
    for arguments in spans(page):
        with contextlib.suppress(SystemExit):
            parser.parse_args(arguments)
        error = capsys.readouterr().err
        assert not error or "are required" in error, f"purebench {shlex.join(arguments)}: {error}"


QUICK = sorted({shlex.join(c) for page in PAGES for c in commands(page) if shlex.join(c).startswith(RUN)})
QUICK = [command for command in QUICK if "--probe" not in command]


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_run(command, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = build_parser().parse_args(shlex.split(command))
    assert arguments.run(arguments) == 0
    assert capsys.readouterr().out.strip()


def test_a_defense_of_ten_lines_on_a_board_of_six(tmp_path, monkeypatch):
    save_files("README.md", tmp_path)
    for name, lines in (("mine.py", 10), ("mine.toml", 6)):
        written = (tmp_path / name).read_text(encoding="utf-8").splitlines()
        assert len([line for line in written if line and not line.startswith("# ")]) <= lines
    assert ["run", "mine.toml"] in commands("README.md")
    monkeypatch.chdir(tmp_path)
    arguments = build_parser().parse_args(["run", "mine.toml", "--workers", "0"])  # in this process
    assert arguments.run(arguments) == 0
    frame = bench.summary(tmp_path / "results" / "mine")
    assert set(frame["attack"]) == {"none", "uniform", "transfer", "bench:adaptive", "worst case"}


def test_the_surprises_of_the_front_page():
    def mean(defense: str, attack: str, gradient: str = "") -> float:
        return float(row("digits-linf", defense, attack, gradient)["robust_mean"])

    assert 0.3 < mean("adp", "autoattack:rand") < 0.367
    assert 0.18 < mean("adp", "foolbox:LinfPGD, 50 steps", "exact") < 0.22
    assert mean("ebm-mcmc", "autoattack:rand, bpda") > mean("ebm-mcmc", "foolbox:LinfPGD")
    for defense in ("adp", "ebm-mcmc"):
        rows = bench.summary(ROOT / "results" / "digits-linf").query("defense == @defense")
        attacks = rows[~rows["attack"].isin(["none", "uniform", "worst case"])]
        assert mean(defense, "worst case") < attacks["robust_mean"].min()
        assert mean("pgd-at", "worst case") > mean(defense, "worst case")
        assert mean("pgd-at", "none") >= mean(defense, "none")
    assert len({*bench.load_cells(ROOT / "results" / "digits-defenses")["defense"]}) == 42


def test_the_findings_of_the_family():
    def mean(defense: str, attack: str) -> float | None:
        found = row("digits-defenses", defense, attack)
        return None if found is None else float(found["robust_mean"])

    assert mean("defense-vae", "autoattack:standard") == 0 < 0.85 < mean("defense-vae", "PGD-50, BPDA")
    assert mean("jem-refine", "adaptive") < mean("jem-refine", "transfer") < 0.1 < mean("jem-refine", "APGD-50, exact")
    weaker = set()
    for defense in {*bench.load_cells(ROOT / "results" / "digits-defenses")["defense"]}:
        adaptive, exact = mean(defense, "adaptive"), mean(defense, "APGD-50, exact") or mean(defense, "APGD-25, exact")
        if adaptive is not None and adaptive >= exact:
            assert adaptive - exact <= 0.008
            weaker.add(defense)
    assert weaker == {"adp", "diffpure", "gaussian-noise"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", TEXT[page])
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_the_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(cited)
    assert (cited["cff-version"], cited["title"], cited["version"]) == ("1.2.0", "purebench", bench.__version__)
    assert cited["license"] == "MIT"
    assert cited["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_python_blocks_of_the_readmes_import_public_names_alone():
    public = re.compile(r"(bench|defenses)(\.(attacks|stats|data|analysis|board|audit|plots)[\w.]*)?$")
    for name, text in TEXT.items():
        if name == "CONTRIBUTING.md":
            continue
        for language, code in BLOCK.findall(text):
            modules = re.findall(r"^from ([\w.]+) import", code, re.MULTILINE) if language == "python" else []
            assert not [m for m in modules if m.split(".")[0] in ("bench", "defenses") and not public.match(m)], name
