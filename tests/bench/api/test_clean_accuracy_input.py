"""Wrong arguments of `clean_accuracy`, and data in the place of a number of images, are one clear line."""

import numpy as np
import pytest
import torch

from bench import benchmark, clean_accuracy, run_preset
from defenses import UserError, load_model
from defenses.core.noise import Noise
from defenses.data import load_dataset


class Net(torch.nn.Module):
    def forward(self, x):
        return 9 * x.flatten(1)[:, :10]


X, Y = torch.rand(6, 1, 8, 8), torch.arange(6)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("undefended", "the model is 'undefended'; give a torch.nn.Module, as load_model makes of a name"),
        (None, "the model is 'None'; give a torch.nn.Module"),
        (lambda x: x, "give a torch.nn.Module"),
        (Net, r"the model is the class Net; give an instance, as Net\(\)"),
    ],
)
def test_no_module(model, words):
    with pytest.raises(UserError, match=words):
        clean_accuracy(model, X, Y)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ("digits", Y, "the images are 'digits'; give a tensor or NumPy array of numbers"),
        (X, [None] * 6, "the labels are .*; give a tensor or NumPy array of numbers"),
        (X[0], Y[:1], r"images are \[1, 8, 8\]; they must be \[N, C, H, W\]"),
        (X, Y > 2, r"labels are torch.bool \[6\]; they must be whole numbers"),
        (X[:, 0], Y, r"images are \[6, 8, 8\]"),
    ],
)
def test_no_images_or_labels(x, y, words):
    with pytest.raises(UserError, match=words):
        clean_accuracy(Net().eval(), x, y)


def test_integers_of_numpy():
    data, model = load_dataset("digits"), load_model("undefended")
    x, y = data.x[:6], data.y[:6]
    assert clean_accuracy(model, x.numpy(), y.numpy(), np.int64(4)) == clean_accuracy(model, x, y, 4)


def test_a_refused_image_is_wrong_as_on_a_board():
    data, model = load_dataset("digits"), load_model("score-norm", "digits")
    x, y = data.x[:100], data.y[:100]
    with torch.no_grad():
        made = model.decide(x, Noise.of(0, 100))
        right = made.logits.argmax(1) == y
    assert (right & made.rejected).any()
    assert clean_accuracy(model, x, y, 40) == int((right & ~made.rejected).sum()) / 100


def test_images_of_half_precision():
    assert clean_accuracy(Net().eval(), X.bfloat16(), Y) == clean_accuracy(Net().eval(), X.bfloat16().float(), Y)


class Dropped(Net):
    def forward(self, x):
        return 9 * torch.nn.functional.dropout(x, 0.5).flatten(1)[:, :10]


def test_a_random_model_has_the_same_accuracy_again_and_leaves_the_generator_alone():
    x, y = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 10
    before = torch.get_rng_state()
    model = Dropped().eval()
    first = clean_accuracy(model, x, y, stochastic=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert clean_accuracy(model, x, y, stochastic=True) == first
    assert {clean_accuracy(model, x, y, stochastic=True, seed=seed) for seed in range(1, 6)} != {first}
    adp = load_model("adp")
    data = load_dataset("digits")
    assert len({clean_accuracy(adp, data.x[:60], data.y[:60]) for _ in range(3)}) == 1


class Buffered(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(9.0, device="meta"))


def test_the_device_is_that_of_a_buffer_where_there_are_no_parameters():
    with pytest.raises(Exception, match="Meta"):
        clean_accuracy(Buffered().eval(), X, Y)


def test_data_in_the_place_of_a_number_of_images():
    with pytest.raises(UserError, match=r"^n_examples is a pair or list; give data by name: dataset=\(x, y\)$"):
        benchmark(Net().eval(), (X, Y), eps="1/5", attacks="torchattacks:FGSM")


def test_no_path_of_the_machine_in_a_message(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="has no eps of its own") as caught:
        run_preset("standard", Net().eval(), (X, Y))
    assert str(tmp_path) not in str(caught.value)
    assert 'in Python eps="1/5"' in str(caught.value)
