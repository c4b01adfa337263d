"""What an audit leaves on disk: JSON, pages, pictures."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.analysis.caveats import failures
from bench.audit.findings import Audit, Finding, Plot
from bench.audit.pages import as_markdown
from bench.audit.run import write
from bench.audit.svg import as_svg
from defenses.utils.errors import UserError


def finding(status="pass", **more):
    return Finding("a <check>", status, 'says "so" & so', {"n": 1.0, "bad": float("inf")}, (3,), **more)


PLOT = Plot("line", "copies", "cosine", {"a": ((1, 2), (0.5, float("nan")))}, 0.1)


def test_json_has_no_infinity_and_comes_back():
    said = json.loads(json.dumps(finding(plot=PLOT).as_dict() | {"plot": None}, allow_nan=False))
    assert said["numbers"] == {"n": 1.0, "bad": None}
    whole = finding(plot=replace(PLOT, series={"a": ((1, 2), (0.5, 0.25))}))
    assert Finding.from_dict(json.loads(json.dumps(whole.as_dict()))).plot == whole.plot


def about(eps="1/5"):
    return {
        "fingerprint": {"name": "x"},
        "dataset": "digits",
        "norm": "Linf",
        "eps": eps,
        "images": 4,
        "budget": "quick",
    }


def test_audits_of_one_folder_stand_side_by_side(tmp_path):
    write(tmp_path, Audit("x", about(), (finding("fail"),)))
    write(tmp_path, Audit("x", about("1/10"), (finding(),)))
    known = write(tmp_path, Audit("x", about(), (finding(),)))
    assert [(a.about["eps"], a.failed) for a in known] == [("1/5", ()), ("1/10", ())]
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "a &lt;check&gt;" in page
    assert "<script" not in page
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in page
    assert "default-src 'none'" in page
    assert '<td class="t pass">pass</td>' in page


def test_what_is_not_measurable_is_neither_a_pass_nor_a_failure(tmp_path):
    audits = [Audit("x", about(), (finding(), finding("not measurable"), finding("not applicable")))]
    assert repr(audits[0]).splitlines()[0].endswith(": no check fails; not measurable: a <check>")
    assert "| not measurable | 1 pass, 1 not measurable, 1 not applicable |" in " ".join(as_markdown(audits).split())
    write(tmp_path, audits[0])
    assert '<td class="t not">not measurable</td>' in (tmp_path / "audit" / "audit.html").read_text()
    assert failures(tmp_path, {"defenses": {"x": {"name": "x"}}}) == {}
    write(tmp_path, Audit("x", about(), (finding("fail"), finding("not measurable"))))
    assert failures(tmp_path, {"defenses": {"x": {"name": "x"}}}) == {"x": ("a <check>",)}


def test_a_damaged_file_is_one_line(tmp_path):
    write(tmp_path, Audit("x", about(), (finding(),)))
    file = tmp_path / "audit" / "audit.json"
    file.write_text(file.read_text().replace('"passed": true', '"passed": false'))
    with pytest.raises(UserError, match="is damaged; remove it"):
        write(tmp_path, Audit("x", about(), (finding(),)))


@pytest.mark.parametrize("kind", ["line", "bar", "rows"])
def test_pictures_are_well_formed(kind):
    plot = Plot(kind, "x & y", "<y>", {"a": (("p", "q"), (0.5, 0.25))}, 0.1)
    root = ElementTree.fromstring(as_svg(plot))
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"x & y", "p", "q"} <= set(texts)
    assert ("<y>" in texts) == (kind != "rows")


def test_bars_are_as_high_as_their_values():
    root = ElementTree.fromstring(as_svg(Plot("bar", "", "", {"a": (("p", "q"), (0.5, 0.25))})))
    heights = [float(r.get("height")) for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)


def test_rows_are_as_long_as_their_values_and_nothing_below_zero():
    plot = Plot("rows", "", "", {"a": (("p", "q", "r"), (8.0, 4.0, -3.0))})
    root = ElementTree.fromstring(as_svg(plot))
    lengths = [float(r.get("width")) for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=0.2)
    assert lengths[2] == 0
    assert "-3" in {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
