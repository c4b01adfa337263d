"""Parameters of every card: values of another kind, or out of range, are one line that names defense and parameter."""

import math

import pytest
from boards import purebench_here as purebench

from defenses import card, list_models, load_model
from defenses.utils.errors import UserError, unknown
from defenses.utils.parameters import canonical
from defenses.utils.validation import Count as COUNT
from defenses.utils.validation import Flag as FLAG
from defenses.utils.validation import Number as NUMBER
from defenses.utils.validation import Whole as WHOLE
from defenses.utils.validation import validated
from defenses.zoo.cards import LIST, PART, TEXT, kind_of

# What a parameter of a composition takes, and None where it may be left out.
COMMON = {"filters": LIST, "detector": PART, "classifier": PART, "runs": COUNT, "combine": TEXT, "level": NUMBER}
COMMON |= {"suspected": TEXT, "fpr": NUMBER, "autoencoder": TEXT}
BAD = ("abc", math.nan, math.inf, -math.inf, 2.5, "1e999", True, [1, 2], {"name": "abc"})
RIGHT = {WHOLE: (), COUNT: (), NUMBER: (2.5,), FLAG: (True,), TEXT: ("abc",), LIST: ([1, 2],)}
RIGHT |= {PART: ("abc", {"name": "abc"})}
PARAMETERS = [(name, key) for name in list_models() for key in card(name).parameters]


def kind(name, key):
    known = card(name)
    return (
        COMMON[key]
        if key in COMMON and (key, known.kind) != ("classifier", "classifier")
        else kind_of(known.parameters[key])
    )


def is_kind(value, kind):
    try:
        validated(kind, value)
    except UserError:
        return False
    return True


def refused(name, key, value):
    with pytest.raises(UserError) as caught:
        load_model(name, "digits", **{key: value})
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("name", "key"), PARAMETERS)
def test_values_of_another_kind_are_refused_by_name(name, key):
    for value in BAD:
        text = refused(name, key, value) if value not in RIGHT[kind(name, key)] else ""
        assert not text or (name in text and f"{key} is" in text), text
    if key == "filters" or key in card(name).optional:
        load_model(name, "digits", **{key: None})
    else:
        assert f"{key} is None" in refused(name, key, None)


@pytest.mark.parametrize(("name", "key"), [(n, k) for n, k in PARAMETERS if kind(n, k) in (TEXT, PART)])
def test_texts_that_are_no_name_are_refused(name, key):
    assert "abc" in refused(name, key, "abc")


@pytest.mark.parametrize("name", list_models())
def test_parameters_of_a_composition_are_checked_too(name):
    from defenses.zoo.cards import COMMON as known

    for key in known[card(name).kind]:
        for value in BAD:
            if value not in RIGHT[kind(name, key)]:
                text = refused(name, key, value)
                assert name in text
                assert f"{key} is" in text
    if card(name).kind != "detector":
        for role in ("filters", "detector"):
            part = {"name": "adp" if role == "filters" else "lid", "sigma" if role == "filters" else "eps": math.nan}
            assert name in refused(name, role, [part] if role == "filters" else part)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("diffpure", "t_star", 2),
        ("diffpure", "steps", 0),
        ("gdmp", "guidance", -1),
        ("gdmp", "rounds", 0),
        ("score-sde", "snr", 0),
        ("score-sde", "sampler", "od"),
        ("denoise-once", "t_star", -0.5),
        ("defense-gan", "steps", -1),
        ("defense-gan", "restarts", 0),
        ("defense-gan", "lr", 0),
        ("jem-refine", "rate", 0),
        ("jem-refine", "eps", -1),
        ("igebm", "steps", -1),
        ("igebm", "rate", -1),
        ("lid", "neighbours", 1),
        ("lid", "neighbours", 100),
        ("lid", "eps", 0),
        ("mahalanobis", "least", -1),
        ("mahalanobis", "least", 2),
        ("mahalanobis", "least", 1),
        ("magnet-jsd", "temperature", 0),
        ("magnet-reconstruction", "p", 0.5),
        ("likelihood", "temperature", -1),
        ("feature-squeezing", "strength", -1),
        ("feature-squeezing", "patch", 2),
        ("adp", "noise_kind", "cauchy"),
        ("adp", "combine", "mean"),
        ("adp", "runs", 0),
        ("score-norm", "fpr", 1),
    ],
)
def test_ranges_name_the_defense_and_the_parameter(name, key, value):
    text = refused(name, key, value)
    assert name in text
    assert key in text


def test_a_part_is_named_in_a_composition():
    assert "lid: eps is 3" in str(refused("pgd-at", "detector", {"name": "lid", "eps": 3}))
    assert "bit-depth: bits is 9" in refused("adp", "filters", [{"name": "bit-depth", "bits": 9}])
    gated = {"detector": "score-norm", "suspected": "purify"}
    with pytest.raises(UserError, match="adp: level is 2"):
        load_model("adp", level=2, **gated)


def test_kinds():
    for default, expected in ((True, FLAG), (3, WHOLE), (3.0, NUMBER), ("1/4", NUMBER), ("x", TEXT), ([], LIST)):
        assert kind_of(default) == expected
    for value, fits in (
        (2.0, (WHOLE, COUNT, NUMBER)),
        ("4/2", (WHOLE, COUNT, NUMBER)),
        (0, (WHOLE, NUMBER)),
        (-1, (NUMBER,)),
        ("1/2", (NUMBER,)),
        ("x", (TEXT, PART)),
    ):
        assert [k for k in RIGHT if is_kind(canonical(value), k)] == list(fits)
    assert not any(is_kind(None, k) for k in RIGHT)


def test_right_values_have_the_spelling_that_they_had():
    given = {"steps": 3.0, "lam": "0.2", "delta": 1e-3, "faithful": False, "runs": "4/2", "level": None}
    merged = card("adp").merged("digits", given)
    expected = {"steps": "3", "lam": "1/5", "delta": "1/1000", "faithful": False, "runs": "2", "level": None}
    assert {k: merged[k] for k in given} == expected
    for name in list_models():
        known = card(name)
        for dataset in ("cifar10", *known.datasets):
            values = {**known.parameters, **known.datasets.get(dataset, {})}
            assert known.merged(dataset, {}) == {k: canonical(v) for k, v in values.items()}


def test_names_that_two_lists_have_are_told_once():
    with pytest.raises(UserError, match=r'"fprr"; did you mean fpr\?'):
        card("lid").merged("digits", {"fprr": 1})
    assert str(unknown("part", "zzz", ["a", "b", "a"])) == 'unknown part "zzz"; known: a, b'


BOARD = """
dataset = "digits"
indices = "first-20"
[threat]
norm = "Linf"
eps = "1/5"
[[defense]]
name = "diffpure"
params = {{ {given} }}
[[attack]]
name = "foolbox:LinfFastGradientAttack"
"""


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("steps = 0", "diffpure: steps is 0; it must be a whole number, at least 1"),
        ("steps = 2.5", "diffpure: steps is 5/2; it must be a whole number, at least 0"),
        ("t_star = nan", "diffpure: t_star is nan; it must be finite"),
        ('filters = [{ name = "adp", sigma = inf }]', "diffpure: sigma is inf; it must be finite"),
        ('filters = [{ name = "adp", sigma = -1 }]', "diffpure: adp: sigma is -1; it must be at least 0"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_board_names_itself_the_defense_and_the_parameter(tmp_path, command, given, line):
    file, out = tmp_path / "mine.toml", tmp_path / "out"
    file.write_text(BOARD.format(given=given))
    said = purebench(command, file, "--out", out)
    assert said.returncode == 2, said.stdout + said.stderr
    (told,) = [text for text in said.stderr.splitlines() if text.startswith("purebench: ")]
    assert "Traceback" not in said.stderr
    assert "mine" in told
    assert told.endswith(line)
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("given", ["steps=2.5", "t_star=abc", "t_star=nan"])
def test_the_command_line_says_it_in_one_line(given):
    word, said = given.partition("=")[0], purebench("certify", "diffpure", "--set", given)
    assert said.returncode == 2
    assert said.stderr.startswith(f"purebench: diffpure: {word} is ")
    assert said.stderr.count("\n") == 1
