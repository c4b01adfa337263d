"""Schedules of learning rates, and how a phase says its own."""

import pytest
import torch

from defenses.training.phases import Phase
from defenses.training.recipe import load_recipe
from defenses.training.schedules import learning_rates
from defenses.utils.errors import UserError


def test_schedules_are_the_closed_forms():
    steps = torch.arange(10)
    cosine = 0.01 + 0.5 * (0.2 - 0.01) * (1 + torch.cos(torch.pi * steps / 10))
    torch.testing.assert_close(torch.tensor(learning_rates("cosine", 0.2, 0.01, 10)), cosine)
    triangle = 0.2 * (1 - (steps / 5 - 1).abs())
    torch.testing.assert_close(torch.tensor(learning_rates("cyclic", 0.2, 0.0, 10)), triangle)


def test_a_phase_says_its_schedule_only_where_it_has_one():
    assert "schedule" not in Phase(3, "sgd", 0.1).described()
    assert Phase(3, "sgd", 0.1, schedule="cosine").described()["schedule"] == "cosine"
    # The recipe of the shipped weights from before schedules came.
    assert load_recipe("pgd-at", "digits").fingerprint(0).startswith("8a5f1db2eaca")
    with pytest.raises(UserError, match="did you mean cosine"):
        load_recipe("pgd-at", "digits", {"phases": [{"until": 3, "optimizer": "sgd", "lr": 1, "schedule": "cosin"}]})
