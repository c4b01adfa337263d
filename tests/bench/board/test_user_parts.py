"""Test user-defined classifiers and filters around registered and user-defined purifiers."""

import json
import shutil

import pytest
from boards import MODELS, purebench_here

from bench.audit.reproduction.rebuild import rebuild_defense
from bench.board.defense_entry import describe
from bench.board.load import load_board
from bench.execution.options import Options
from bench.execution.run_board import run_board
from bench.store.jsonl import read
from bench.store.reader import read_folder
from defenses import load_model
from defenses.utils.errors import UserError
from defenses.utils.parameters import canonical

PARTS = """
from torch.nn.functional import avg_pool2d
from beside import GAIN


class Blur(Purifier):
    steps = 0

    def __init__(self, share=0.5):
        super().__init__()
        self.share = GAIN * share

    def start(self, x, z):
        return {"x": x + self.share * (avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x)}, {}

    def step(self, state, ctx, k, z):
        return state

    def finish(self, state, ctx):
        return state["x"]


class Shrink(Blur):
    def finish(self, state, ctx):
        return avg_pool2d(state["x"], 2)


class Breaks(Blur):
    def finish(self, state, ctx):
        raise ValueError("no such\\nsize")


class Whole(GlobalNoise, Classifier):
    def __init__(self):
        Classifier.__init__(self, linear(), num_classes=10, input_shape=(1, 8, 8))


instance = Blur()
text = "linear"


def saved(path):
    made = linear()
    made.load_state_dict(torch.load(path, weights_only=True))
    return made
"""

BOARD = """
name = "own"
dataset = "digits"
indices = "first-12"
[threat]
norm = "Linf"
eps = "1/10"
[verdict]
draws = 3
selection = 1
[[defense]]
name = "adp"
label = "classifier"
params = {{ classifier = "{file}:linear", steps = 2 }}
[[defense]]
name = "adp"
label = "both"
params = {{ classifier = {{ name = "{file}:linear", seed = 1 }}, steps = 2, filters = ["{file}:Blur", "median"] }}
[[defense]]
name = "pgd-at"
label = "filters"
params = {{ filters = [{{ name = "{file}:Blur", share = "1/4" }}, "{file}:instance"] }}
[[defense]]
name = "{file}:Jitter"
label = "all mine"
params = {{ classifier = "{file}:linear", filters = ["{file}:Blur"] }}
[[attack]]
name = "autoattack:apgd-ce"
params = {{ n_iter = 2 }}
"""


def written(folder, more=""):
    """Write the file of parts and the module that it imports to a folder."""
    (folder / "beside.py").write_text("GAIN = 1.0\n")
    file = folder / "parts.py"
    file.write_text(MODELS + PARTS + more)
    return file


def cells_of(folder):
    path = folder / "own.toml"
    path.write_text(BOARD.format(file=folder / "parts.py"))
    keys = {}
    for cell in load_board(path).cells():
        keys.setdefault(cell.defense.label, set()).add(cell.key)
    return keys


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder with parts.py, beside.py, own.toml and out/, its results."""
    folder = tmp_path_factory.mktemp("own")
    written(folder)
    cells_of(folder)
    result = purebench_here("run", folder / "own.toml", "--out", folder / "out", "--quiet")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def file(tmp_path):
    return written(tmp_path)


def test_a_board_runs_and_is_told_whole(done):
    lines = read_folder(done / "out", lambda lines, _: lines)
    assert {line["status"] for line in lines} == {"ok"}
    said = {line["defense"]: line["identity"]["defense"] for line in lines}
    assert str(done) not in json.dumps(said)  # the keys are the same wherever the files lie
    around = {label: [(p["role"], p["name"]) for p in defense["around"]] for label, defense in said.items()}
    mine = [("filter", "parts.py:Blur"), ("classifier", "parts.py:linear")]
    assert around == {
        "classifier": mine[1:],
        "both": [("filter", "median"), *mine],
        "filters": [mine[0], ("filter", "parts.py:instance")],
        "all mine": mine,
    }
    assert said["both"]["around"][2]["parameters"] == {"seed": "1"}
    manifest = json.loads((done / "out" / "manifest.json").read_text())
    code = said["classifier"]["around"][0]["code"]
    assert len(code) == 64
    assert json.dumps(manifest).count(code) >= 6


def test_verify_makes_them_again_and_tells_what_changed(done, tmp_path):
    shutil.copytree(done / "out", tmp_path / "out")
    file = written(tmp_path)
    again = purebench_here("verify", tmp_path / "out", "--quiet", "--code", tmp_path)
    assert again.returncode == 0, again.stdout
    assert "12 of 12 cells agree in every draw" in again.stdout
    file.write_text(file.read_text().replace("10 * means", "9 * means"))
    changed = purebench_here("verify", tmp_path / "out", "--quiet", "--code", tmp_path, "--defense", "both")
    assert changed.returncode == 2
    assert "both is not the defense that was judged: code of filter parts.py:Blur (part 2): " in changed.stdout
    assert "both is not the defense that was judged: state of classifier parts.py:linear (part 3): " in changed.stdout
    gone = purebench_here("verify", tmp_path / "out", "--quiet", "--code", tmp_path / "out")
    assert gone.returncode == 2
    assert gone.stdout.count("; say where it lies with --code") == 4


def test_a_changed_file_is_a_new_cell(done, tmp_path):
    before = cells_of(done)
    written(tmp_path)
    assert cells_of(tmp_path) == before
    for change in ("parts.py", "beside.py"):
        with (tmp_path / change).open("a") as text:
            text.write("CHANGED = True\n")
        after = cells_of(tmp_path)
        assert all(not keys & before[label] for label, keys in after.items()), change
        before = after


def test_weights_that_a_part_loads_are_part_of_it(file, tmp_path):
    import torch

    entry = {"name": "adp", "params": {"classifier": {"name": f"{file}:saved", "path": str(tmp_path / "w.pt")}}}
    found = []
    for scale in (1, 2):
        torch.save({"1.weight": scale * torch.ones(10, 64), "1.bias": torch.zeros(10)}, tmp_path / "w.pt")
        found.append(describe(entry, "digits").fingerprint)
    assert found[0]["around"][0].pop("state") != found[1]["around"][0].pop("state")
    assert found[0] == found[1]


@pytest.mark.parametrize("around", [{"filters": ["bit-depth"]}, {"detector": "score-norm"}])
def test_what_stands_around_a_model_is_named_as_the_defense(file, around):
    part = next(iter(around)).removesuffix("s")
    with pytest.raises(UserError, match=rf'takes no {part}s?; name the {part} as the defense, with classifier = "'):
        load_model(f"{file}:linear", "digits", **around)
    with pytest.raises(UserError, match=rf'takes no {part}s?; name the {part} as the defense, with classifier = "ro'):
        load_model("robustbench:Wong2020Fast", "cifar10", **around)


def test_a_function_that_puts_filters_around_by_itself_is_given_them(tmp_path):
    (tmp_path / "whole.py").write_text(
        "from defenses import load_model\n"
        "def model(**params):\n    return load_model('undefended', 'digits', **params)\n"
    )
    whole = load_model(f"{tmp_path}/whole.py:model", "digits", filters=["bit-depth"])
    assert "bpda" in whole.gradients


def test_probabilities_behind_a_purifier_are_refused_as_those_of_a_model(tmp_path):
    (tmp_path / "p.py").write_text(
        "import torch\nclass Probs(torch.nn.Module):\n    def forward(self, x):\n"
        "        return (9 * x.flatten(1)[:, :10]).softmax(1)\n"
    )
    chosen = ("run", "--preset", "standard", "--dataset", "digits", "--eps", "1/5", "--indices", "first-4")
    named = ("--defense", "adp", "--set", f"classifier={tmp_path}/p.py:Probs")
    said = purebench_here(*chosen, *named, "--out", tmp_path / "o")
    assert said.returncode == 2
    assert "adp returns probabilities; return logits" in said.stderr
    assert not (tmp_path / "o").exists()


def test_a_classifier_that_takes_no_seed_stands_behind_a_seeded_purifier(file):
    assert load_model("bit-depth", "digits", classifier=f"{file}:linear", training_seed=1).gradients


def test_a_part_that_is_made_by_chance_is_refused(file, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(BOARD.format(file=file).replace(f'"{file}:linear", steps', f'"{file}:unseeded", steps'))
    with pytest.raises(UserError, match="classifier is another model each time it is built"):
        run_board(load_board(path), tmp_path / "out", Options(quiet=True, workers=0, defenses=("classifier",)))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"classifier": "{folder}/none.py:linear"}, "there is no file .*none.py"),
        ({"classifier": "{file}:liner"}, "did you mean linear"),
        ({"classifier": "{file}:text"}, "cannot be built: TypeError: 'str' object is not callable"),
        ({"classifier": "{file}:Blur"}, 'classifier = ".*:Blur" is a purifier; name a plain classifier'),
        ({"classifier": "{file}:noisy"}, 'classifier = ".*:noisy" is a Purified; name a plain classifier'),
        ({"classifier": {"name": "{file}:linear", "sede": 1}}, "unexpected keyword argument 'sede'"),
        ({"classifier": {"name": "{file}:linear", "runs": 2}}, 'takes no "runs" inside a composition'),
        ({"classifier": "{file}:Large"}, 'the classifier behind "adp" does not take images of 1x8x8'),
        ({"classifier": "{file}:GlobalNoise"}, 'the classifier behind "adp" is random'),
        ({"filters": ["{folder}/none.py:Blur"]}, "there is no file .*none.py"),
        ({"filters": ["{file}:Blurr"]}, "did you mean Blur"),
        (
            {"filters": ["{file}:linear"]},
            'filter ".*:linear" is a Sequential; let it be a defenses.Purifier',
        ),
        ({"filters": [{"name": "{file}:Blur", "shear": 1}]}, "unexpected keyword argument 'shear'"),
        ({"filters": [{"name": "{file}:instance", "share": 1}]}, 'made already, so it takes no "share"'),
        ({"filters": [{"name": "{file}:Blur", "runs": 2}]}, 'takes no "runs" inside a composition'),
        ({"filters": ["{file}:Shrink"]}, '".*:Shrink" makes images of 1x4x4, and its classifier takes 1x8x8'),
        ({"filters": ["{file}:Breaks"]}, '".*:Breaks" does not take images of 1x8x8, .*: ValueError: no such size$'),
        ({"detector": "{file}:Blur"}, "cannot stand as a detector by its name"),
    ],
)
def test_what_cannot_stand_there_is_one_line(file, tmp_path, params, words):
    filled = json.loads(json.dumps(params).replace("{file}", str(file)).replace("{folder}", str(tmp_path)))
    with pytest.raises(UserError, match=words) as caught:
        describe({"name": "adp", "params": filled}, "digits")
    assert "\n" not in str(caught.value)


def test_the_commands_take_them(file, tmp_path, monkeypatch, capsys):
    from bench.cli.main import main

    monkeypatch.chdir(tmp_path)
    own = ["--set", "classifier=parts.py:linear"]
    assert main(["certify", "adp", *own, "steps=2"]) == 0
    assert main(["corruptions", "adp", *own, "--corruptions", "contrast", "--indices", "first-8", "--quiet"]) == 0
    images = ["--indices", "first-2", "--n", "50", "--quiet"]
    assert main(["smooth", "gaussian-noise", *own, *images, "--out", "behind"]) == 0
    (kept,) = (tmp_path / "behind").glob("sigma-*.jsonl")
    (part,) = read(kept)[0]["defense"]["around"]
    assert part["name"] == "parts.py:linear"
    data = ["--dataset", "digits", "--eps", "1/5", "--indices", "first-8"]
    how = ["--attack", "none", "--out", "out", "--workers", "0"]
    assert main(["run", "--preset", "standard", "--defense", "bit-depth", *own, *data, *how]) == 0
    capsys.readouterr()
    assert (
        main(["run", "--preset", "standard", "--defense", "bit-depth", "--set", "classifier=parts.py:lin", *data]) == 2
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_a_purifier_of_ones_own_is_rebuilt_with_its_parts(file):
    params = {"classifier": f"{file}:linear", "filters": [f"{file}:Blur"]}
    said = describe({"name": f"{file}:Jitter", "params": params}, "digits").fingerprint
    made = rebuild_defense(canonical(said), "digits", code=file.parent)
    assert made.defense is not None, made.problem
    assert made.changes == ()
    assert load_model(f"{file}:Jitter", **params).gradients == made.defense.gradients
