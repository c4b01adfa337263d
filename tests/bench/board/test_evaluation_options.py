"""The options that the Python functions share."""

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

import bench
from bench.board.evaluation_options import EvaluationOptions, OptionKeywords, options_of
from defenses.utils.errors import UserError


def test_type_checkers_know_every_option():
    assert list(get_type_hints(OptionKeywords)) == [field.name for field in fields(EvaluationOptions)]


def test_values_of_callers_win_over_those_of_the_function():
    def function(model, **options):
        return options_of(function, options, draws=65)

    assert function(None).draws == 65
    given = function(None, draws=np.int64(3), out="results")
    assert (given.draws, type(given.draws), given.out) == (3, int, Path("results"))


@pytest.mark.parametrize(
    ("function", "option", "nearest"),
    [
        (bench.benchmark, "n_example", "n_examples"),
        (bench.benchmark, "batchsize", "batch_size"),
        (bench.judge, "indice", "indices"),
        (bench.run_preset, "outt", "out"),
        (bench.audit_defense, "seeds", "seed"),
        (bench.certify, "devices", "device"),
    ],
)
def test_a_misspelt_option_gets_its_nearest_name(function, option, nearest):
    arguments = [np.zeros((1, 1, 8, 8))] if function is bench.judge else []
    arguments += ["standard"] if function is bench.run_preset else []
    arguments += ["undefended"]
    eps = {} if function is bench.certify else {"eps": "1/5"}
    with pytest.raises(UserError, match=f'unknown argument of {function.__name__} "{option}"; did you mean {nearest}'):
        function(*arguments, **eps, **{option: 1})


@pytest.mark.parametrize("option", ["draws", "seed", "batch_size"])
def test_a_protocol_says_its_budget_itself(option):
    with pytest.raises(UserError, match=f'unknown argument of run_preset "{option}"'):
        bench.run_preset("standard", "undefended", eps="1/5", **{option: 3})


@pytest.mark.parametrize("value", [{"batch_size": 0}, {"batch_size": True}, {"stochastic": "yes"}, {"split": 3}])
def test_bad_values_are_refused(value):
    with pytest.raises(UserError, match=next(iter(value))):
        EvaluationOptions(**value)
