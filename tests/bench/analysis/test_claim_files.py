"""Files of published claims: those that come with purebench, and what the reader refuses."""

import tomllib
from pathlib import Path

import pytest
from boards import ROOT

from bench.analysis.claim_files import CLAIMS, read_claims
from bench.attacks.registry import attack_names
from defenses.core.gradient_modes import MODES
from defenses.utils.errors import UserError
from defenses.zoo.cards import card, list_models

REFERENCE = next((p for p in (ROOT / "shared", ROOT.parent / "shared") if p.is_dir()), Path("missing")) / "reference"
CLAIM = {
    "defense": "adp", "paper": "A paper", "kind": "claim", "dataset": "cifar10", "threat": "Linf 8/255",
    "clean": "0.8614", "robust": "0.7001", "attack": "BPDA+EOT", "source": "table 1", "evidence": "paper",
}  # fmt: skip


def written(folder, claim, before=""):
    path = folder / "own.toml"
    path.write_text(f"{before}\n[[claims]]\n" + "".join(f"{k} = {v!r}\n" for k, v in claim.items()))
    return path


def test_claims_that_come_along_are_whole():
    claims = read_claims()
    assert len(claims) > 200
    for claim in claims:
        assert claim.source.strip(), claim
        assert all(share is None or 0 <= share <= 1 for share in (claim.clean, claim.robust))
        assert claim.like in ("", *MODES, *attack_names()), claim
    assert len(set(claims)) == len(claims)


def test_cards_have_the_claims_of_the_files():
    claims = read_claims()
    for name in list_models():
        of_files = [(c.robust, c.attack) for c in claims if c.defense == name and c.robust is not None]
        assert of_files == [(float(c["robust"]), c["attack"]) for c in card(name).claims if c["robust"]]
    assert card("gan-at").claims == ()  # its figure was found nowhere
    assert {c["clean"] for c in card("smoothing").claims if "sigma 0.25" in c["network"]} == {"0.748", "0.67"}
    assert "0.9350" in {c["clean"] for c in card("gdmp").claims}


def test_no_unverified_figure_comes_along():
    reference = REFERENCE / "claims.toml"
    if not reference.is_file():
        pytest.skip("the reference of published figures is not beside the repository")
    entries = tomllib.loads(reference.read_text())["claim"]

    def keys(raw):
        return tuple(raw[key] for key in ("dataset", "clean", "robust", "attack"))

    unverified = {keys(e) for e in entries if "UNVERIFIED" in str(e)}
    verified = [e for e in entries if "UNVERIFIED" not in str(e)]
    shipped = [
        {k: v for k, v in raw.items() if k != "claims"} | claim
        for file in CLAIMS.glob("*.toml")
        for raw in [tomllib.loads(file.read_text())]
        for claim in raw["claims"]
    ]
    assert not {keys(e) for e in shipped} & unverified
    assert len(shipped) == len(verified)
    of_papers = sorted(keys(e) for e in verified if e["seen"] == "paper")
    assert sorted(keys(e) for e in shipped if e["evidence"] != "secondary") == of_papers


def test_keys_above_hold_for_all_claims_of_a_file(tmp_path):
    path = written(tmp_path, CLAIM, "year = 2021\nn = 500")
    path.write_text(path.read_text() + path.read_text().partition("\n[[claims]]")[2].join(("[[claims]]", "n = 100\n")))
    first, second = read_claims(path)
    assert (first.year, second.year, first.n, second.n) == (2021, 2021, 500, 100)
    assert (first.robust, first.norm, str(first.eps)) == (0.7001, "Linf", "8/255")
    assert read_claims(tmp_path) == [first, second]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sorce": "x"}, 'unknown key "sorce"; did you mean source?'),
        ({"source": None}, "source is missing; give it"),
        ({"source": " "}, 'source is " "; it must be a text, and not empty'),
        ({"robust": "70.01"}, "robust is 70.01; it must be a share between 0 and 1"),
        ({"clean": "-0.1"}, "clean is -0.1"),
        ({"robust": "many"}, 'robust is "many"'),
        ({"clean": "", "robust": ""}, "it has no number"),
        ({"threat": "Linf"}, 'write norm and radius, as "Linf 8/255"'),
        ({"threat": "Lin 8/255"}, 'unknown norm "Lin"; did you mean Linf?'),
        ({"threat": "L2 -1"}, "it must be positive"),
        ({"kind": "reevaluation"}, "did you mean re-evaluation?"),
        ({"evidence": "papers"}, "did you mean paper?"),
        ({"n": 0}, "n is 0; it must be a whole number, at least 1"),
        ({"n": "all"}, 'n is "all"'),
        ({"weights": ["Wong2020Fast"]}, 'weights.0 is "Wong2020Fast"; it must be "sha256:" and 64'),
        ({"weights": "sha256:0"}, "it must be a list"),
        ({"attack": 3}, "attack is 3; it must be a text"),
        ({"kind": ["claim"]}, 'it must be "claim" or "re-evaluation"'),
    ],
)
def test_a_bad_claim_is_refused_in_one_line(tmp_path, change, message):
    path = written(tmp_path, {k: v for k, v in (CLAIM | change).items() if v is not None})
    with pytest.raises(UserError) as caught:
        read_claims(path)
    assert str(caught.value).startswith(f"{path}: claim 1: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[[claims", "is not a TOML file"), ("year = 1", "has no claims"), ("claims = [1]", "has no claims")],
)
def test_a_file_without_claims_is_refused(tmp_path, text, message):
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_claims(tmp_path / "own.toml")


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*missing\.toml"):
        read_claims(tmp_path / "missing.toml")
    with pytest.raises(UserError, match="holds no TOML files of claims"):
        read_claims(tmp_path)
