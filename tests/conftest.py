"""Helpers of the tests are importable by name; data sets that are not at hand are skipped with the reason."""

import os
import signal
import sys

import pytest
import torch

import defenses  # noqa: F401  # provides the module autoattack

# Where Python may write no bytecode, every process that a test starts compiles all of torch's sources for seconds.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Networks this small gain nothing from threads, and lose much when cores are shared; nor do those of commands.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# What a shell runs in the background ignores Ctrl-C, and so would the commands that are tested.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
