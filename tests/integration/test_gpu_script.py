"""The script that measures a GPU runs on a CPU, small, so that it works on the day that there is one."""

import subprocess
import sys

from boards import ROOT

SCRIPT = ROOT / "tests/benchmarks/gpu.py"


def test_all_sections_run_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.md"
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    text = out.read_text()
    assert "failed" not in text
    assert text.count("## ") == 7
    assert "| normal | the same bits |" in text
    assert "| rows with equal verdicts | 300 of 300 |" in text
    assert "more than 1e-5" not in text
    assert text.count("not on a CPU") == 2  # memory, compilation
    assert "ADP, DDPM++ U-Net, exact gradient | bf16 |" in text
