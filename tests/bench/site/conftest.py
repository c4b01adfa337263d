"""The site of two committed boards, built once for all workers."""

import pytest
from filelock import FileLock
from site_pages import COMMITTED

from bench.site.build import build_site


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """Folder of the site of `COMMITTED`, which tests read; building it again changes nothing."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "committed"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "built").exists():
            build_site(COMMITTED, folder / "site")
            (folder / "built").touch()
    return folder / "site"
