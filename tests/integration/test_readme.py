"""README.md does what it says: every Python block runs, every command of it exists."""

import re
import subprocess
import sys

import pytest
from boards import ROOT, purebench

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
COMMANDS = re.findall(r"\b(purebench [^|#\n]*)", SHELL)


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_python_blocks_run(block):
    """Each by itself; lines after #> are what it prints."""
    code = BLOCKS[block]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    expected = [line[2:].strip() for line in BLOCKS[block].splitlines() if line.startswith("#>")]
    printed = [line.strip() for line in result.stdout.splitlines()]
    for line in expected:
        assert line in printed, f"README prints {line!r}, the code {printed}"


def test_there_are_blocks_and_commands():
    assert len(BLOCKS) >= 4
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", sorted({c.split()[1] for c in COMMANDS}))
def test_commands_exist(command):
    assert purebench(command, "--help").returncode == 0
