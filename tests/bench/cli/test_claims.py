"""`purebench claims`: table, JSON, exit codes, RobustBench's files, bad input."""

import json

import pytest
from boards import ROOT, purebench_here
from fake_board import HOSTILE, deterministic, write

CLAIM = """
[[claims]]
defense = "plain"
paper = "A paper"
kind = "claim"
dataset = "digits"
threat = "Linf 1/5"
clean = ""
robust = "{robust}"
n = 1000
attack = "PGD"
weights = ["sha256:{sha}"]
like = "exact"
source = "table 1"
evidence = "paper"
"""
WONG = {"name": "Fast is better than free", "dataset": "cifar10", "eps": "8/255", "clean_acc": "83.34"}
WONG |= {"reported": "46.06", "autoattack_acc": "43.21"}


@pytest.fixture
def results(tmp_path):
    """A folder of the defense "plain", 2 of 6 images right in the worst case."""
    folder = write(tmp_path / "results", deterministic())
    manifest = {"defenses": {"plain": {"name": "plain", "weights": {"plain": "a" * 64}}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def claim_file(folder, robust, sha="a", **more):
    path = folder / f"{robust}{sha}.toml"
    path.write_text(CLAIM.format(robust=robust, sha=sha * 64))
    return path


def entry(folder, raw, norm="Linf"):
    path = folder / "cifar10" / norm / "Wong2020Fast.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(raw))
    return path


@pytest.mark.parametrize(
    ("robust", "sha", "code", "verdict"),
    [
        ("0.95", "a", 1, "refuted"),
        ("0.3", "a", 0, "consistent"),
        ("0.02", "a", 0, "not reached"),
        ("0.95", "b", 0, "not comparable"),
    ],
)
def test_the_exit_code_is_1_if_a_claim_is_refuted(results, tmp_path, robust, sha, code, verdict):
    done = purebench_here("claims", results, "--claims", claim_file(tmp_path, robust, sha))
    assert (done.returncode, done.stderr) == (code, "")
    assert verdict in done.stdout
    assert f"1 claim: 1 {verdict}" in done.stdout
    (row,) = json.loads(
        purebench_here("claims", results, "--claims", claim_file(tmp_path, robust, sha), "--json").stdout
    )
    assert (row["verdict"], row["claimed_robust"], row["measured_robust"]) == (verdict, float(robust), 2 / 6)
    assert (row["claimed_clean"], row["source"], row["claimed_n"]) == (None, "table 1", 1000)


def test_several_folders_and_files(results, tmp_path):
    files = [claim_file(tmp_path, robust) for robust in ("0.3", "0.95")]
    done = purebench_here("claims", results, ROOT / "results" / "digits-linf", "--claims", *files)
    assert done.returncode == 1
    assert f"Claims: {results}" in done.stdout
    assert f"Claims: {ROOT / 'results' / 'digits-linf'}" in done.stdout
    assert "1 consistent" in done.stdout
    assert "another network" in done.stdout


def test_the_protocol_of_a_claim_leaves_points(results, tmp_path):
    done = purebench_here("claims", results, "--claims", claim_file(tmp_path, "0.95", "b"))
    assert "not run" in done.stdout.partition("\n1 claim")[0]
    text = purebench_here("claims", ROOT / "results" / "reproduction-digits").stdout
    assert text.count("+11.71 [+7.32, +15.64]") == 2, "of the claims on adp on CIFAR-10 and CIFAR-100"
    assert text.count("+8.11 [+4.12, +11.78]") == 1


def test_of_re_evaluations_that_cannot_be_compared_the_lowest_is_shown():
    folder = ROOT / "results" / "digits-linf"
    text = purebench_here("claims", folder).stdout
    rows = json.loads(purebench_here("claims", folder, "--json").stdout)
    shown = text.count("not comparable  ")
    assert f"{len(rows)} claims: {len(rows)} not comparable" in text
    assert f"{len(rows) - shown} further re-evaluations that cannot be compared: --json" in text
    assert 0 < shown < len(rows)


@pytest.mark.parametrize(
    ("change", "code", "verdict", "note"),
    [
        ({}, 1, "refuted", "published numbers, unpaired"),
        ({"reported": "43.21"}, 0, "consistent", "published numbers, unpaired"),
        ({"external": "39", "reported": "43.21", "unreliable": True}, 1, "refuted", "as unreliable"),
        ({"external": "60", "reported": "43.21"}, 0, "consistent", "unpaired"),
        ({"reported": "30"}, 0, "not reached", "unpaired"),
        ({"reported": "-"}, 0, "not comparable", ""),
        ({"autoattack_acc": None}, 0, "not comparable", ""),
        ({"reported": "45.0", "dataset": "cifar10"}, 0, "consistent", "unpaired"),
        ({"reported": "45.4", "dataset": "cifar10"}, 1, "refuted", "unpaired"),
        ({"reported": "45.4", "dataset": "imagenet"}, 0, "consistent", "unpaired"),  # 5,000 images
    ],
)
def test_reported_against_the_best_known_of_robustbench(tmp_path, change, code, verdict, note):
    done = purebench_here("claims", "--claims", entry(tmp_path, WONG | change), "--json")
    assert (done.returncode, done.stderr) == (code, "")
    (row,) = json.loads(done.stdout)
    assert row["verdict"] == verdict
    assert note in row["note"]
    assert (row["defense"], row["threat"], row["measured_clean"]) == ("Wong2020Fast", "Linf 8/255", 0.8334)


def test_what_robustbench_knows_stands_beside_the_results(results, tmp_path):
    done = purebench_here("claims", results, "--claims", claim_file(tmp_path, "0.3"), entry(tmp_path, WONG))
    assert done.returncode == 1
    assert "46.06 [45.08, 47.04]" in done.stdout
    assert "2 claims: 1 consistent, 1 refuted" in done.stdout


def test_a_folder_of_robustbench_and_of_claims(results, tmp_path):
    entry(tmp_path / "model_info", WONG)
    entry(tmp_path / "model_info", WONG | {"eps": "128/255", "reported": "40"}, norm="L2")
    done = purebench_here("claims", "--claims", tmp_path / "model_info", "--json")
    rows = json.loads(done.stdout)
    assert [(row["threat"], row["verdict"]) for row in rows] == [
        ("L2 128/255", "not reached"),
        ("Linf 8/255", "refuted"),
    ]
    claim_file(tmp_path / "model_info", "0.3")
    done = purebench_here("claims", results, "--claims", tmp_path / "model_info")
    assert "3 claims: " in done.stdout, "the TOML file beside them counts too"
    (tmp_path / "empty").mkdir()
    done = purebench_here("claims", results, "--claims", tmp_path / "empty")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "empty holds no TOML files of claims" in done.stderr


def test_defenses_without_a_claim(results):
    done = purebench_here("claims", results)
    assert (done.returncode, done.stdout) == (0, "no claim is known of these defenses\n")
    assert purebench_here("claims", results, "--json").stdout == "[]\n"


def test_names_are_harmless(results, tmp_path):
    path = claim_file(tmp_path, "0.3")
    path.write_text(path.read_text().replace('"A paper"', json.dumps(HOSTILE)).replace('claim"', 're-evaluation"'))
    assert "\x1b" not in purebench_here("claims", results, "--claims", path).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a results folder, or with --claims a JSON file of RobustBench's model_info"),
        (("--claims", "{own}"), "name a results folder"),
        (("{folder}", "nowhere"), "nowhere is no results folder (it has no plan.jsonl)"),
        (("{folder}", "--claims", "missing.toml"), "cannot read missing.toml"),
        (("{folder}", "--claims", "missing.json"), "cannot read missing.json"),
        (("{folder}", "--claims", "{bad}"), 'claim 1: unknown key "robustt"; did you mean robust?'),
        (("{folder}", "--claims", "{out}"), "claim 1: robust is 1.2; it must be a share between 0 and 1"),
        (("{poison}",), "is no folder of attacks"),
    ],
)
def test_bad_input_is_one_line(results, tmp_path, words, message):
    own = claim_file(tmp_path, "0.3")
    (bad := tmp_path / "bad.toml").write_text(own.read_text().replace("robust =", "robustt ="))
    out = claim_file(tmp_path, "1.2")
    poison = ROOT / "results" / "digits-poisoning"
    places = {"folder": results, "own": own, "bad": bad, "out": out, "poison": poison}
    done = purebench_here("claims", *(word.format(**places) for word in words))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line
