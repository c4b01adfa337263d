"""Test calls written for RobustBench's `benchmark` and `clean_accuracy`."""

from inspect import signature

import pytest
import torch
from boards import MODELS

from bench import benchmark, clean_accuracy
from bench.api.robustbench_arguments import translated
from defenses.data.dataset import load_dataset
from defenses.utils.errors import UserError


@pytest.fixture(scope="module")
def models():
    space: dict = {"__name__": "models_of_test"}
    exec(MODELS, space)
    return space


LINEAR = {"attacks": "foolbox:LinfFastGradientAttack", "dataset": "digits"}


def test_a_call_written_for_robustbench(models, tmp_path):
    from robustbench.model_zoo.enums import ThreatModel as TheirThreat

    theirs = benchmark(
        models["linear"](),
        10,
        threat_model=TheirThreat.Linf,
        eps=8 / 255,
        to_disk=False,
        model_name="mine",
        data_dir=str(tmp_path),
        device=torch.device("cpu"),
        batch_size=5,
        log_path=None,
        preprocessing=None,
        **LINEAR,
    )
    ours = benchmark(
        models["linear"](), n_examples=10, threat_model="Linf", eps="8/255", name="mine", batch_size=5, **LINEAR
    )
    assert set(theirs["eps"]) == {"8/255"}
    assert set(theirs["defense"]) == {"mine"}
    assert list(theirs["accuracy"]) == list(ours["accuracy"])
    assert list(theirs["cell"]) == list(ours["cell"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"threat_model": "corruptions"}, 'corrupted images are a data set, "cifar10-c/fog/5"'),
        ({"to_disk": True}, "model-info export"),
        ({"aa_state_path": "state"}, "keeps finished blocks and resumes"),
        ({"preprocessing": "Crop288"}, "for imagenet alone"),
        ({"n_example": 3}, "unknown argument of benchmark"),
    ],
)
def test_what_robustbench_does_otherwise_is_refused_in_one_line(models, more, words):
    with pytest.raises(UserError, match=words) as caught:
        benchmark(models["linear"](), eps=8 / 255, **LINEAR, **more)
    assert "\n" not in str(caught.value)


def test_preprocessing_is_part_of_the_name_of_imagenet():
    assert translated("imagenet", "Linf", {"preprocessing": "Crop288"}) == ("imagenet/Crop288", "Linf", {})


def test_clean_accuracy_is_that_of_robustbench(models):
    from robustbench.utils import clean_accuracy as theirs

    assert list(signature(clean_accuracy).parameters) == [*signature(theirs).parameters, "stochastic", "seed"]
    data, model = load_dataset("digits"), models["linear"]()
    x, y = data.x[:37], data.y[:37]
    assert clean_accuracy(model, x=x, y=y, batch_size=9, device="cpu") == theirs(model, x=x, y=y, device="cpu")
    for batch in (5, 100):
        assert clean_accuracy(model, x, y, batch, torch.device("cpu")) == theirs(
            model, x, y, batch, torch.device("cpu")
        )
    assert 0 < clean_accuracy(model, x, y) < 1
