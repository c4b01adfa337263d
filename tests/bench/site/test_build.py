"""The folder of a site: the same bytes again, only ours overwritten, bad results refused in one line."""

import json
import re
import shutil
import subprocess
import sys
import time

import pytest
from boards import ROOT
from fake_board import deterministic, write
from site_pages import COMMITTED, many, pages, titled, write_board_pages
from speed import slowness

from bench.cli.main import main
from bench.site.build import build_site
from defenses.utils.errors import UserError


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def results(tmp_path):
    return write(tmp_path / "results" / "one", deterministic() + deterministic("other"))


def test_the_same_bytes_are_built_again_and_nothing_is_written_twice(results, tmp_path):
    build_site([results], tmp_path / "a")
    site = build_site([results], tmp_path / "b" / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b" / "c")
    assert site.folder == tmp_path / "b" / "c"
    assert site.index == site.folder / "index.html"
    on_disk = [file.relative_to(site.folder).as_posix() for file in site.folder.rglob("*") if file.is_file()]
    assert list(site.files) == sorted(on_disk)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*")}
    assert build_site([results], tmp_path / "a").files == site.files
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "a").rglob("*")} == times


def test_a_repeated_build_of_the_committed_results_is_short(site):
    before = time.process_time()
    build_site(COMMITTED, site)
    assert time.process_time() - before < 3


def test_check_tells_what_differs_and_writes_nothing(results, tmp_path, capsys):
    out = tmp_path / "site"
    command = ["site", str(results), "--out", str(out)]
    assert main([*command, "--check"]) == 1
    assert not out.exists()
    assert "index.html is missing" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"{len(contents(out))} files in {out}; open ")
    assert main([*command, "--check"]) == 0
    (out / "method.html").write_text("else")
    assert main([*command, "--check"]) == 1
    assert capsys.readouterr().err == f"{out}: method.html differs\n"
    assert (out / "method.html").read_text() == "else"
    assert main([*command, "--quiet"]) == 0  # mended
    assert main([*command, "--check"]) == 0


def test_pages_of_rows_that_are_gone_are_removed_and_other_files_stay(results, tmp_path):
    out = tmp_path / "site"
    build_site([results], out)
    (out / "note.txt").write_text("mine")
    assert (out / "b/one/other.html").is_file()
    shutil.rmtree(results)
    write(results, deterministic())
    build_site([results], out)
    assert not (out / "b/one/other.html").exists()
    assert (out / "note.txt").read_text() == "mine"
    assert (out / "b/one/plain.html").is_file()
    assert "1 defense, " in (out / "b/one/index.html").read_text()


@pytest.mark.parametrize("names", [["../victim.txt"], ["/etc/hostname"], ["b/../../victim.txt"]])
def test_a_description_cannot_have_other_files_removed(names, results, tmp_path):
    out = tmp_path / "site"
    build_site([results], out)
    (tmp_path / "victim.txt").write_text("stays")
    described = json.loads((out / "data/site.json").read_text())
    described["files"] |= dict.fromkeys(names, "0")
    described["title"] = "other"
    (out / "data/site.json").write_text(json.dumps(described))
    build_site([results], out)
    assert (tmp_path / "victim.txt").read_text() == "stays"


def test_a_build_that_was_cut_short_is_finished(results, tmp_path):
    out = tmp_path / "site"
    build_site([results], out)
    whole = contents(out)
    (out / "index.html").unlink()
    shutil.rmtree(out / "b")
    build_site([results], out)
    assert contents(out) == whole


def test_another_folder_is_not_overwritten(results, tmp_path, capsys):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "index.html").write_text("mine")
    assert main(["site", str(results), "--out", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"purebench: {out} is not empty and holds no site of purebench")
    assert contents(out) == {"index.html": b"mine"}
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="is a file; choose a folder with --out"):
        build_site([results], file)
    (tmp_path / "new").mkdir()
    build_site([results], tmp_path / "new")


def damaged(results):
    part = next((results / "parts").iterdir())
    (part / "records.parquet").write_bytes(b"else")
    return part.name


def test_bad_results_are_refused_in_one_line_and_nothing_is_written(results, tmp_path, capsys):
    out, empty = tmp_path / "site", tmp_path / "nothing"
    empty.mkdir()
    twin = shutil.copytree(results, tmp_path / "two")
    for folder in (results, twin):
        titled(folder, "A title")
    cases = {
        (): "name a results folder, as results/digits-linf",
        (empty,): f"{empty} holds no results",
        (tmp_path / "missing",): "missing holds no results",
        (results, twin): 'one and two both have the title "A title"; name one of them',
    }
    for folders, text in cases.items():
        assert main(["site", *map(str, folders), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    name = damaged(twin)
    assert main(["site", str(twin), "--out", str(out)]) == 2
    assert f"{name}: records.parquet is damaged; run the board again" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_is_named_twice_counts_once(results, tmp_path):
    build_site([results, results / ".." / "one"], tmp_path / "site")
    assert len(pages(tmp_path / "site")) == 6 + 3 + 2 * 2


def test_no_folder_of_this_machine_stands_on_a_page(results, tmp_path):
    build_site([results], tmp_path / "site")
    assert not [path for path, data in contents(tmp_path / "site").items() if str(tmp_path).encode() in data]


def test_results_are_read_and_never_written(results, tmp_path):
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ctime_ns) for file in results.rglob("*")}
    build_site([results], tmp_path / "site")
    assert {file: (file.stat().st_mtime_ns, file.stat().st_ctime_ns) for file in results.rglob("*")} == before


def test_neither_torch_nor_a_data_set_is_loaded(tmp_path):
    folders = [str(ROOT / "results" / n) for n in ("digits-gan", "smooth-digits-smoothing", "corruptions-digits")]
    code = (
        "import sys; from bench.cli.main import main; "
        f"assert main(['site', *{folders!r}, '--out', {str(tmp_path / 'site')!r}]) == 0; "
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_site_of_all_committed_results_is_quick_small_and_whole(tmp_path):
    folders = [folder for folder in sorted((ROOT / "results").iterdir()) if folder.is_dir()]
    slow, before = slowness(), time.process_time()
    build_site(folders, tmp_path / "site")
    seconds = time.process_time() - before
    assert seconds / max(slow, slowness()) < 60
    files = {file: file.stat().st_size for file in (tmp_path / "site").rglob("*") if file.is_file()}
    assert sum(files.values()) <= 40_000_000
    assert max(size for file, size in files.items() if file.suffix == ".html") <= 1_500_000
    sources = {file.resolve(): file.read_text() for file in files if file.suffix == ".html"}
    anchors = {file: {*re.findall(r'\bid="([^"]+)"', source)} for file, source in sources.items()}
    for file, source in sources.items():
        for path, anchor in {*re.findall(r'href="(?!https?:)([^"#]*)#?([^"]*)"', source)}:
            target = (file.parent / path).resolve() if path else file
            assert target.is_file(), f"{file} links {path}"
            assert not anchor or "=" in anchor or anchor in anchors[target], f"{file}: {path}#{anchor}"


def test_the_page_of_fifty_rows_is_small(tmp_path):
    board = write_board_pages(many(tmp_path / "many", 50, 12), tmp_path / "site")
    assert (board / "index.html").stat().st_size <= 300_000


def test_the_script_is_small_and_parses(tmp_path):
    script = ROOT / "bench/site/assets/site.js"
    text = script.read_text()
    assert len(text) <= 12_000
    assert text.count("\n") <= 250
    assert text.startswith('"use strict";')
    if shutil.which("node"):
        subprocess.run(["node", "--check", str(script)], check=True)
