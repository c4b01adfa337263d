"""The speed of a machine, as bounds of seconds are those of an idle one of the kind on which they were set."""

from __future__ import annotations

import json
import re
import time

import numpy as np

REFERENCE = 0.1  # seconds of `_work` there


def slowness(times: int = 3) -> float:
    """Return how many times slower this machine is now than that one; 1 for a faster one."""
    return max(1.0, min(_seconds() for _ in range(times)) / REFERENCE)


def _seconds() -> float:
    before = time.process_time()
    _work()
    return time.process_time() - before


def _work() -> None:
    """Do what the code of tables and pages does: small objects, texts and arrays."""
    rows = [{"name": f"row {i}", "values": [i * j for j in range(8)], "share": i / 7} for i in range(400)]
    for _ in range(25):
        text = json.dumps(json.loads(json.dumps(rows)), indent=1)
        found = re.findall(r'"name": "([^"]+)"', text)
        ordered = sorted(enumerate(found), key=lambda pair: (pair[1][::-1], pair[0]))
        lines = "".join(f"<td>{at}</td><th>{name.upper()}</th>" for at, name in ordered)
        assert len(re.sub(r"<[^>]+>", "", lines)) > 0
        values = np.array([row["values"] for row in rows], float)
        for column in values.T:
            np.clip(np.nan_to_num(column) / 3, 0, 1).mean()
