"""Tables of large folders: a million records, and at a tenth of the scale how time and memory grow with the rows."""

import importlib.util
import sys
from pathlib import Path

import pytest
from boards import ROOT
from speed import slowness

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
_FILE = ROOT / "tests" / "benchmarks" / "bench_tables.py"
_TRIES = 3  # the best one counts: others may be at work on this machine


@pytest.fixture(scope="module")
def bench_tables():
    spec = importlib.util.spec_from_file_location("bench_tables", _FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_tables"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_tables"]


@pytest.mark.parametrize(
    ("images", "stochastic", "records", "draws", "seconds", "gib"),
    [  # seconds of the processor, and GiB more than after the imports: at least three times what an idle machine takes
        (4_000, False, 100_000, 100_000, 0.6, 0.3),
        (800, True, 20_000, 1_620_000, 1.6, 0.6),
    ],
    ids=["records", "draws"],
)
def test_tables_of_many_rows(bench_tables, tmp_path, images, stochastic, records, draws, seconds, gib):
    import pyarrow.parquet as pq

    # One defense, hence one part: whoever searches all its rows for every cell is slowest then.
    bench_tables.make(tmp_path, bench_tables.Shape(images, stochastic, defenses=1))
    for name, rows in (("records", records), ("draws", draws)):
        files = tmp_path.glob(f"parts/*/{name}.parquet")
        assert sum(pq.read_metadata(f).num_rows for f in files) == rows
    costs = []
    while len(costs) < _TRIES and not any(c.processor <= seconds for c in costs):
        costs.append(bench_tables.measured(bench_tables.TABLES, tmp_path))
    assert min(c.processor for c in costs) <= seconds, costs
    assert min(c.peak - c.after_imports for c in costs) <= gib, costs
    assert (tmp_path / "tables.csv").read_text().count("\n") == 1 + 25 + 1  # a header, the attacks, the worst case


def test_four_times_the_rows_take_four_times_as_long(bench_tables, tmp_path):
    folders = [tmp_path / "small", tmp_path / "large"]
    for folder, images in zip(folders, (4_000, 16_000), strict=True):
        bench_tables.make(folder, bench_tables.Shape(images, False, defenses=1))
    tried, best = 0, [float("inf"), float("inf")]
    while tried < _TRIES and not best[1] <= 6 * best[0] < float("inf"):
        found = [bench_tables.measured(bench_tables.TABLES, f).processor for f in folders]
        tried, best = tried + 1, [min(pair) for pair in zip(best, found, strict=True)]
    assert best[1] <= 6 * best[0], best  # sixteen times as long where every cell searches all rows


def test_a_table_of_a_million_records_takes_a_second_and_a_half(bench_tables, tmp_path):
    bench_tables.make(tmp_path, bench_tables.Shape(10_000, False))
    costs, bounds = [], []
    while len(costs) < _TRIES and not any(c.processor <= b for c, b in zip(costs, bounds, strict=True)):
        bounds.append(1.5 * slowness())
        costs.append(bench_tables.measured(bench_tables.TABLES, tmp_path))
    # Seconds of the processor count both cores and not the waiting for others: on an idle machine it takes no longer.
    assert any(c.processor <= b for c, b in zip(costs, bounds, strict=True)), (costs, bounds)
    assert min(c.peak for c in costs) <= 0.75
