"""Helpers of the tests are importable by name; data sets that are not at hand are skipped with the reason."""

import os
import signal
import sys

import pytest
import torch
from hypothesis import settings

import defenses  # noqa: F401  # provides the module autoattack

# Where Python may write no bytecode, every process that a test starts compiles all of torch's sources for seconds.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Networks this small gain nothing from threads, and lose much when cores are shared; nor do those of commands.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_OPT"] = "0"  # what it compiles runs for a few steps on tiny images
# What a shell runs in the background ignores Ctrl-C, and so would the commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("anywhere", settings(), deadline=None)  # machines are slow at times
settings.load_profile("anywhere")

# Begun first, the longest first: with several processes, none is left alone with one of them at the end.
LONGEST = (
    "faults/test_catalogue.py",
    "attacks/test_attack_table.py",
    "utils/test_identity.py",
    "integration/test_newcomer.py",
    "integration/test_examples.py",
    "execution/test_run_board.py",
    "integration/test_installation.py",
    "training/test_generative_training.py",
    "evaluation/test_seed_known.py",
    "execution/test_schedule.py",
    "zoo/test_robustbench.py",
    "zoo/test_robustbench_zoo.py",
    "audit/test_verify.py",
    "cli/test_main.py",
)


def pytest_collection_modifyitems(items):
    """Put the files of `LONGEST` first; all else stays in its order."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get("/".join(item.path.parts[-2:]), len(rank)))


@pytest.fixture(scope="session")
def need_data():
    """Call with a data set's name: skips when its files are not at hand."""
    from defenses.data.dataset import load_dataset
    from defenses.utils.errors import UserError

    def need(name: str):
        try:
            return load_dataset(name)
        except UserError as error:
            pytest.skip(f"{name}: {error}")

    return need


@pytest.fixture
def one_thread():
    """Small networks gain nothing from more, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
