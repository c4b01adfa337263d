"""Values of recipes, names of weights and sources that cannot be: one line, exit code 2, nothing written."""

import json
import re

import pytest
from boards import purebench_here

from bench.tracks.poisoning.board import load_poison_board
from bench.tracks.poisoning.training import Trainer
from defenses.data.dataset import dataset_info
from defenses.networks.registry import checked_args, kinds
from defenses.training.recipe import load_recipe, methods, objective_of
from defenses.utils.errors import UserError
from defenses.zoo.cards import card
from defenses.zoo.checkpoints import check_classifier
from defenses.zoo.weight_paths import check_name

PHASE = "until=3, optimizer='adam', lr=1e-3"
# (recipe, what is set, what the line says of key, value and kind)
BAD = [
    ("pgd-at", "objective.eps=abc", r'objective\.eps is "abc"; it must be a number above 0 and at most 1'),
    ("pgd-at", "objective.eps=nan", r"objective\.eps is nan; it must be a number"),
    ("pgd-at", "objective.eps=0", r"objective\.eps is 0; .*above 0"),
    ("pgd-at", "objective.eps=8", r"objective\.eps is 8; .*at most 1"),
    ("pgd-at", "objective.eps=1/0", r'objective\.eps is "1/0"; .*a number'),
    ("pgd-at", "objective.eps=true", r"objective\.eps is True; .*a number"),
    ("pgd-at", "objective.validation_images=0", r"validation_images is 0; .*whole number, at least 1"),
    ("pgd-at", "objective.validation_iterations=0", r"validation_iterations is 0; .*whole number, at least 1"),
    ("pgd-at", "objective.validation_step=0", r"validation_step is 0; .*above 0"),
    ("pgd-at", "objective.shift=-1", r"shift is -1; .*whole number, at least 0"),
    ("pgd-at", "objective.shift=1.5", r"shift is 1\.5; .*whole number, at least 0"),
    ("pgd-at", "objective.flip=1", r"flip is 1; .*true or false"),
    ("pgd-at", "objective.iterations=-3", r"iterations is -3; .*at least 1"),
    ("pgd-at", "objective.step=0", r"step is 0; .*above 0"),
    ("pgd-at", "objective.step=-0.1", r"step is -0\.1; .*above 0"),
    ("pgd-at", "objective.ema=1.0", r"ema is 1\.0; .*below 1"),
    ("pgd-at", "batch=0", r"batch is 0; .*whole number, at least 1"),
    ("pgd-at", "batch=-4", r"batch is -4; .*whole number, at least 1"),
    ("pgd-at", "batch=abc", r'batch is "abc"; .*whole number, at least 1'),
    ("pgd-at", "validate_every=0", r"validate_every is 0; .*at least 1"),
    ("pgd-at", "validate_every=-1", r"validate_every is -1; .*at least 1"),
    ("pgd-at", "unit=weeks", r'unit is "weeks"; .*"steps" or "epochs"'),
    ("pgd-at", "phases=3", r"phases is 3; .*a list, each a table"),
    ("pgd-at", "phases.0.until=true", r"phases\.0\.until is True; .*whole number, at least 1"),
    ("pgd-at", "phases.0.until=a", r'phases\.0\.until is "a"; .*whole number, at least 1'),
    ("pgd-at", "phases.1.lr=x", r'phases\.1\.lr is "x"; .*a number, at least 0'),
    ("pgd-at", "phases.0.lr=-1", r"phases\.0\.lr is -1; .*at least 0"),
    ("pgd-at", "phases.0.momentum=1", r"phases\.0\.momentum is 1; .*below 1"),
    ("pgd-at", "phases.0.schedule=cosin", r'schedule is "cosin"; .*"cosine" or "cyclic"; did you mean cosine'),
    ("pgd-at", "phases.2.lr=0.1", r'unknown recipe key "phases\.2\.lr"; did you mean phases'),
    ("pgd-at", "phases=[{until=3, optimizer='adam'}]", r"phases\.0\.lr is missing"),
    ("pgd-at", "network.args.channels=5", r"network\.args\.channels is 5; .*a list, each a whole number, at least 1"),
    ("pgd-at", "network.args.channels=[0]", r"network\.args\.channels is \[0\]"),
    ("pgd-at", "network.args.hidden=-2", r"network\.args\.hidden is -2; .*at least 1"),
    ("pgd-at", "network=3", r"network is 3; .*a table"),
    ("pgd-at", "network.args.nope=3", r'argument of network "small-cnn" "nope"; known: channels, hidden, in'),
    ("pgd-at", "network.args.num_classes=7", r"network\.args\.num_classes is 7, and the data have 10; leave it out"),
    ("pgd-at", "network.kind=noise-mlp", r'network\.kind is "noise-mlp", a noise predictor; it must be a classifier: '),
    ("adp", "network.kind=small-cnn", r'is "small-cnn", a classifier; it must be a score network: ncsnv2, score-conv'),
    ("ebm-mcmc", "network.kind=small-cnn", r"a classifier; it must be an energy of images in \[-1, 1\]: energy-c"),
    ("smoothing", "objective.validation_draws=0", r"validation_draws is 0; .*at least 1"),
    ("smoothing", "objective.sigma=0", r"sigma is 0; .*above 0"),
    ("free-at", "objective.replays=2.5", r"replays is 2\.5; .*whole number, at least 1"),
    ("free-at", "objective.replays=0", r"replays is 0; .*at least 1"),
    ("free-at", "objective.replays=-2", r"replays is -2; .*at least 1"),
    ("gan-at", "objective.gamma=x", r'gamma is "x"; .*a number'),
    ("gan-at", "objective.virtual_step=0", r"virtual_step is 0; .*above 0"),
    ("gan-at", "objective.virtual_step=-.01", r'virtual_step is "?-0?\.01"?; .*above 0'),
    ("gan-at", "objective.generator_steps=0", r"generator_steps is 0; .*at least 1"),
    ("gan-at", "objective.generator={features=0}", r"generator\.features is 0; .*whole number, at least 1"),
    ("trades", "objective.beta=-6", r"beta is -6; .*at least 0"),
    ("mart", "objective.beta=-6", r"beta is -6; .*at least 0"),
    ("grad-align", "objective.lam=-1", r"lam is -1; .*at least 0"),
    ("ensemble-at", "objective.sources=[]", r'sources is \[\]; .*at least one, as \["undefended"\]'),
    ("ensemble-at", "objective.sources=undefended", r'sources is "undefended"; .*a list'),
    (
        "ensemble-at",
        "objective.sources=['adp']",
        r'"adp" is a purifier, and a classifier .*name a classifier of digits',
    ),
    ("ensemble-at", "objective.sources=['defense-vae']", r'"defense-vae" is a purifier'),
    ("defense-vae", "objective.source=jpeg", r'"jpeg" is a purifier'),
    ("vat", "objective.xi=0", r"xi is 0; .*above 0"),
    ("adp", "objective.levels=2.5", r"levels is 2\.5; .*whole number"),
    ("ebm-mcmc", "objective.rejuvenate=2", r"rejuvenate is 2; .*in \[0, 1\]"),
    ("magnet", "objective.noise=-1", r"noise is -1; .*at least 0"),
    ("jem", "objective.bank=0", r"bank is 0; .*at least 1"),
]


@pytest.mark.parametrize(("recipe", "change", "message"), BAD)
def test_what_cannot_stand_in_a_recipe_is_one_line(recipe, change, message, tmp_path):

    done = purebench_here("train", recipe, "--out", tmp_path, "--set", change)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_library_adds_no_line_of_its_own(tmp_path):
    change = ("network.kind=robustbench", "network.args.name=nope")
    done = purebench_here("train", "pgd-at", "--out", tmp_path, "--set", *change)
    assert done.returncode == 2
    assert done.stderr.startswith("purebench: unknown module of RobustBench's architectures")
    assert done.stderr.count("\n") == 1


def test_fractions_and_numbers_in_texts_are_the_numbers():
    plain = load_recipe("pgd-at", "digits")
    spelt = {"objective.eps": "1/5", "objective.step": "0.05", "objective.iterations": "10", "phases.0.lr": "1/1000"}
    assert load_recipe("pgd-at", "digits", spelt).fingerprint(0) == plain.fingerprint(0)
    assert load_recipe("pgd-at", "digits", {"phases.0.lr": 0.5}).phases[0].lr == 0.5
    assert load_recipe("pgd-at", "digits", {"phases.0.lr": 0.5}).phases[1] == plain.phases[1]


@pytest.mark.parametrize("name", methods())
def test_checking_changes_no_recipe(name):
    for dataset, table in card(name).recipes.items():
        recipe = load_recipe(name, dataset)
        assert json.dumps(recipe.objective) == json.dumps(table.get("objective", {}))
        assert json.dumps(recipe.network_args) == json.dumps(table["network"].get("args", {}))
        assert [p.lr for p in recipe.phases] == [t["lr"] for t in table["phases"]]


# What trains something else than a classifier, and the kinds of network that it can train.
TRAINS = {
    "adp": ["ncsnv2", "score-conv", "score-mlp"],
    "ebm-mcmc": ["energy-conv", "energy-mlp", "energy-mlp-leaky"],
    "igebm": ["igebm-mlp", "igebm-resnet"],
    "score-sde": ["ncsnpp", "noise-mlp", "unet-diffusers"],
    "defense-gan": ["dcgan-generator"],
    "defense-vae": ["vae"],
    "magnet": ["autoencoder", "vae"],
}
CLASSIFIERS = ["classifier-mlp", "resnet110", "resnet20", "resnet56", "robustbench", "small-cnn", "timm", "wrn-28-10"]
CLASSIFIERS += ["wrn-biased"]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("name", methods())
def test_a_recipe_takes_networks_of_its_own_role_alone(name, kind):
    fitting = TRAINS.get(name, CLASSIFIERS)
    if kind in fitting:
        assert load_recipe(name, "digits", {"network.kind": kind}).kind == kind
        return
    with pytest.raises(UserError) as refused:
        load_recipe(name, "digits", {"network.kind": kind})
    assert str(refused.value).startswith(f'recipe of {name}: network.kind is "{kind}", a')
    assert str(refused.value).endswith(f": {', '.join(fitting)}")


@pytest.mark.parametrize("name", methods())
def test_every_number_of_a_method_has_a_kind(name):
    """A text where there is a number, and a number where there is a text, are refused for every field there is."""
    from dataclasses import fields

    for f in fields(objective_of(name).table_type):
        with pytest.raises(UserError, match=rf"objective\.{f.name} is .*; it must be "):
            load_recipe(name, "digits", {f"objective.{f.name}": [{"?": 1}]})


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_network_says_what_its_arguments_are(kind):
    assert checked_args(kind, {}) == {}
    with pytest.raises(UserError, match=r"network\.args\.in_channels is \"x\"; it must be a whole number, at least 1"):
        checked_args(kind, {"in_channels": "x"})


# --- names of weights


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "one part of a path"),
        (" ", "one part of a path"),
        ("a/b", "one part of a path"),
        ("..", "one part of a path"),
        (".hidden", "one part of a path"),
        ("a\\b", "one part of a path"),
        ("a\nb", "one part of a path"),
        ("0.3", "reads as a number"),
        ("pgd-at.seed3", "reads as a number or a seed"),
        ("adp", "as another defense is"),
        ("jpeg", "as another defense is"),
    ],
)
def test_names_that_cannot_be_are_refused(name, message, tmp_path):
    with pytest.raises(UserError, match=message):
        check_name(name, "pgd-at")
    assert purebench_here("train", "pgd-at", "--out", tmp_path, "--name", name).returncode == 2
    assert not list(tmp_path.rglob("*"))


def test_a_changed_recipe_stands_beside_its_defense_and_is_loaded(tmp_path):
    from defenses import load_model
    from defenses.data.dataset import load_dataset

    short = ["unit=steps", "validate_every=2", f"phases=[{{{PHASE}}}]", "objective.iterations=1", "objective.eps=3/10"]
    done = purebench_here("train", "pgd-at", "--out", tmp_path, "--name", "pgd-at-eps-3-10", "--set", *short)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "digits" / "pgd-at-eps-3-10.safetensors"
    assert done.stdout.strip() == str(path)
    side = json.loads(path.with_suffix(".json").read_text())
    assert side["recipe"]["method"] == "pgd-at"
    assert side["recipe"]["objective"]["eps"] == 0.3
    assert 0 < side["recipe"]["cpu_seconds"] < 60
    assert sorted(p.name for p in path.parent.iterdir()) == ["pgd-at-eps-3-10.json", path.name]
    model = load_model("pgd-at", "digits", weights_root=tmp_path, classifier="pgd-at-eps-3-10")
    assert model(load_dataset("digits", "validation").x[:3]).shape == (3, 10)
    with pytest.raises(UserError, match="make them: purebench train RECIPE --name nobody --dataset digits"):
        load_model("pgd-at", "digits", classifier="nobody")


# --- what is attacked gives classes


def test_only_classifiers_are_attacked(tmp_path):
    for name in ("undefended", "gan-at", "jem"):
        check_classifier(name, "digits")
    for name in ("adp", "defense-gan", "magnet", "lid"):
        with pytest.raises(UserError, match="a classifier is to be attacked; name a classifier of digits"):
            check_classifier(name, "digits")
    from defenses.zoo.weight_paths import find_weights

    # Under a name of one's own the network tells.
    (tmp_path / "digits").mkdir()
    for ending in (".safetensors", ".json"):
        path = find_weights("adp", "digits").with_suffix(ending)
        (tmp_path / "digits" / f"mine{ending}").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match='"mine" is a network score-mlp'):
        check_classifier("mine", "digits", tmp_path)


def test_a_victim_of_a_poisoning_board_attacks_classifiers_only(tmp_path):
    board = tmp_path / "board.toml"
    board.write_text(
        'dataset = "digits"\nseeds = [0]\n[training]\nrecipe = "ensemble-at"\n'
        'set = { "objective.sources" = ["adp"] }\n[[attack]]\nname = "badnets"\nratios = [0.5]\n'
    )
    loaded = load_poison_board(board)
    trial = loaded.trials(dataset_info("digits"))[0]
    with pytest.raises(UserError, match='"adp" is a purifier'):
        Trainer(loaded).victim(trial, tmp_path / "x.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["board.toml"]


def test_a_poisoning_board_perturbs_on_classifiers_only(tmp_path):
    board = tmp_path / "board.toml"
    board.write_text(
        'dataset = "digits"\nseeds = [0]\n[training]\nrecipe = "undefended"\n'
        '[[attack]]\nname = "clean-label"\nratios = [0.5]\nagainst = "defense-vae"\n'
    )
    with pytest.raises(UserError, match='"defense-vae" is a purifier') as caught:
        load_poison_board(board)
    assert "\n" not in str(caught.value)
