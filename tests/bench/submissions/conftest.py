"""A packed row, made once."""

import shutil

import pytest
from submitted import folders


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    """See `submitted.folders`; it is not written to."""
    return folders(tmp_path_factory.mktemp("submitted"))


@pytest.fixture(autouse=True)
def unmarked(made):
    """No mark of an earlier import of the code."""
    (made / "imported").unlink(missing_ok=True)


@pytest.fixture
def board(made, tmp_path):
    """A copy of the board without the row."""
    return shutil.copytree(made / "board", tmp_path / "board")
