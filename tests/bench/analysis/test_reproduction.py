"""Protocols beside the full one: shares by hand, incomplete rows, the table; and verdicts of k replicates."""

import math

import pandas as pd
import pytest
from fake_board import HELD, failed, line, recorded, result, row, stochastic, write

import bench
from bench.analysis import claim_files
from bench.analysis.claim_files import Claim
from bench.analysis.summary import summary
from bench.report import tables
from bench.report.files import current_table
from bench.report.protocol_table import protocol_table
from bench.report.tables import table_texts
from bench.stats.paired import paired_difference
from bench.stats.proportions import wilson
from defenses.utils.errors import UserError

URL = "https://arxiv.org/abs/2106.06041"  # of the preset adp-paper
CLAIM = Claim("plain", "A paper", "claim", "cifar10", "Linf 8/255", 0.9, 0.7, "PGD", "table 1", "paper", url=URL, n=100)


def cells(name="plain", own="ok"):
    """Clean 5 of 6; adp-paper leaves images 0, 1, 2, 4; standard 0, 1; transfer all but 0 and 5."""
    first = result(line(name, "adp-paper: PGD"), [1, 1, 1, 0, 1, 1])
    return [
        result(line(name, "none"), [1, 1, 1, 1, 1, 0], size=0),
        result(line(name, "uniform"), [1, 1, 1, 1, 1, 0]),
        result(line(name, "transfer", view="blind"), [0, 1, 1, 1, 1, 0]),
        first if own == "ok" else failed(line(name, "adp-paper: PGD"), "error", "out of memory"),
        result(line(name, "adp-paper: PGD, known", seed_known=True), [0, 0, 0, 0, 0, 0]),
        result(line(name, "standard: apgd"), [1, 1, 0, 0, 0, 1]),
    ]


def test_the_shares_of_both_protocols(tmp_path):
    frame = bench.reproduction(write(tmp_path, cells()), [CLAIM])
    (found,) = frame.to_dict("records")
    assert (found["defense"], found["protocol"], found["status"], found["n_images"]) == ("plain", "adp-paper", "ok", 6)
    assert (found["dataset"], found["norm"], found["eps"]) == ("digits", "Linf", "1/5")
    own, full = [1, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0]  # with clean images; of standard with the transfer
    for name, shares in (("own", own), ("full", full), ("null", [0, 1, 1, 1, 1, 0]), ("clean", [1, 1, 1, 1, 1, 0])):
        low, high = wilson(sum(shares), 6)
        values = [found[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert values == pytest.approx([sum(shares) / 6, float(low), float(high)])
    paired = paired_difference(own, full)
    values = [found[f"weakness{end}"] for end in ("", "_low", "_high")]
    assert values == [paired.difference, paired.low, paired.high]
    assert (found["claimed"], found["claimed_low"]) == (0.7, float(wilson(70, 100)[0]))
    assert (found["paper"], found["kind"], found["claimed_dataset"]) == ("A paper", "claim", "cifar10")


def test_without_standard_the_own_attacks_of_the_board_are_the_full_protocol(tmp_path):
    own = [*cells()[:-1], result(line("plain", "bench:adaptive"), [1, 1, 0, 0, 0, 1])]
    frames = [bench.reproduction(write(tmp_path / n, c), [CLAIM]) for n, c in (("own", own), ("standard", cells()))]
    pd.testing.assert_frame_equal(*(frame.drop(columns="results") for frame in frames))
    both = bench.reproduction(write(tmp_path / "both", [*cells(), result(line("plain", "own"), [0] * 6)]), [CLAIM])
    pd.testing.assert_frame_equal(*(frame.drop(columns="results") for frame in (both, frames[1])))
    nothing = bench.reproduction(write(tmp_path / "nothing", cells()[:-1]), [CLAIM])
    assert nothing["status"].tolist() == ["no attack of standard"]
    assert nothing["full"].isna().all()


def test_without_a_claim_or_a_verdict(tmp_path):
    frame = bench.reproduction(write(tmp_path, cells(own="error")), [])
    (found,) = frame.to_dict("records")
    assert found["status"] == "without adp-paper: PGD: error: out of memory"
    assert all(math.isnan(found[name]) for name in ("claimed", "own", "own_low", "weakness", "weakness_high"))
    assert found["full"] == 1 / 6
    cells_of_table = protocol_table(frame).rows[0]
    assert cells_of_table[2:4] == ("–", "–")
    assert "no claim" in cells_of_table


def test_an_attack_that_no_defense_supports_is_told_of(tmp_path):
    """The numbers are of the others, as in tables, and do not pass for those of the whole protocol."""
    gone = [failed(line("plain", f"{of}: x"), "unsupported", "needs L2") for of in ("adp-paper", "standard")]
    (found,) = bench.reproduction(write(tmp_path, [*cells(), *gone]), [CLAIM]).to_dict("records")
    assert found["status"] == (
        "without adp-paper: x: unsupported: needs L2; without standard: x: unsupported: needs L2"
    )
    assert (found["own"], found["full"]) == (4 / 6, 1 / 6)


def test_boards_without_protocols_have_no_rows(tmp_path):
    assert bench.reproduction(write(tmp_path, stochastic()), [CLAIM]).empty
    assert bench.reproduction([], [CLAIM]).empty


def test_protocols_without_the_full_one(tmp_path):
    (found,) = bench.reproduction(write(tmp_path, cells()[:-1]), []).to_dict("records")
    assert found["status"] == "no attack of standard"
    assert math.isnan(found["weakness"])
    assert math.isnan(found["full"])
    assert found["own"] == 4 / 6


def test_the_table_stands_with_those_of_the_board(tmp_path):
    results = cells()
    presets = [{"name": "adp-paper", "source": "S", "differs": "D"}, {"name": "standard", "source": "P", "differs": ""}]
    folder = recorded(tmp_path, results, [r.line for r in results], presets=presets)
    texts = table_texts(folder)[1]
    for ending in ("md", "html", "tex"):
        assert "Protocols beside the full one" in texts[f"tables.{ending}"]
    assert "preset adp-paper: S: D" in texts["tables.md"]
    assert "preset standard: P" in texts["tables.md"]
    assert "+50.00" in texts["tables.md"]


def test_written_tables_follow_the_claims(tmp_path, monkeypatch):
    """They are written anew where the claims of a later version are others."""
    results, claims = cells(), tmp_path / "claims"
    claims.mkdir()
    monkeypatch.setattr(claim_files, "CLAIMS", claims)
    monkeypatch.setattr(tables, "read_claims", lambda: claim_files.read_claims(claims))
    folder = recorded(tmp_path / "out", results, [r.line for r in results], presets=[{"name": "adp-paper"}])
    for robust in ("0.7", "0.6123"):
        about = {"defense": "plain", "paper": "A paper", "kind": "claim", "dataset": "cifar10", "threat": "Linf 8/255"}
        about |= {"robust": robust, "attack": "PGD", "source": "table 1", "evidence": "paper", "url": URL}
        text = "".join(f"{key} = {value!r}\n" for key, value in about.items())
        (claims / "one.toml").write_text(f"[[claims]]\n{text}")
        assert f" {100 * float(robust):.2f} " in current_table(folder, "markdown")


def test_the_verdict_of_k_replicates_is_that_of_the_first_draws(tmp_path):
    folder = write(tmp_path, stochastic())
    for k in (1, 7, 8, HELD):
        rows = summary(folder, k=k)
        right = [min(c, k) > k / 2 for c in (15, 9, 6, 0, 9, 3)]  # the first draws of an image are its right ones
        assert row(rows, "noisy", "apgd")["mean_logit"] == pytest.approx(sum(right) / 6)
        assert row(rows, "noisy", "apgd")["robust_mean"] == pytest.approx(42 / 6 / HELD)
    pd.testing.assert_frame_equal(summary(folder, k=HELD), summary(folder))


def test_an_even_number_of_replicates_is_told_of_once(tmp_path, caplog):
    folder = write(tmp_path, stochastic())
    for k in (4, 4, 5):
        summary(folder, k=k)
    assert [text.partition(":")[2][:14] for text in caplog.messages] == [" k = 4 is even"]


@pytest.mark.parametrize("k", [0, HELD + 1, -1, 2.0, True])
def test_k_is_a_number_of_draws(tmp_path, k):
    with pytest.raises(UserError, match=rf"k is .*from 1 to {HELD}$"):
        summary(write(tmp_path, stochastic()), k=k)


def test_k_needs_the_draws(tmp_path):
    frame = bench.load_results(write(tmp_path, stochastic()))
    with pytest.raises(UserError, match="k = 3 needs the results folder"):
        summary(frame, k=3)
