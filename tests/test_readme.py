"""The README's tour runs as it stands, and its method table names files that exist."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()

BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.mark.slow
def test_tour_runs(tmp_path, monkeypatch, capsys):
    code, filters, factors, teacher, bits = BLOCKS[:5]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    accuracy, size = capsys.readouterr().out.splitlines()[-1].split()
    assert float(accuracy) > 0.6 and int(size) == (tmp_path / "small.tflite").stat().st_size
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20
    exec(compile(filters, "README.md", "exec"), names)
    start, *_, last = names["result"].steps
    assert last.macs <= 0.5 * start.macs and "real" in capsys.readouterr().out
    exec(compile(factors, "README.md", "exec"), names)
    assert names["found"].macs <= 0.5 * names["found"].macs_before
    capsys.readouterr()
    exec(compile(teacher, "README.md", "exec"), names)
    assert names["taught"].student.evaluate(names["x"], names["y"], verbose=0)[1] > 0.6
    exec(compile(bits, "README.md", "exec"), names)
    size, packed = map(int, capsys.readouterr().out.splitlines()[-1].split())
    assert packed < size and names["tc"].unpack(names["packed"]) == names["file"].content
    low = names["tc"].slim(names["tc"].strip(names["low"]))
    np.testing.assert_allclose(names["file"].predict(names["x"]), low.predict(names["x"], verbose=0), atol=1e-4)


@pytest.mark.slow
def test_tasks_and_machines_run(tmp_path, capsys):
    tasks, machines = BLOCKS[5:]
    exec(compile("import tfcompress as tc\n" + tasks, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) < 3.0  # miles per gallon; guessing the mean is 6.5 off
    (tmp_path / "train.py").write_text(machines)
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "small.keras").is_file() and (tmp_path / "runs" / "net.backup.npz").is_file()


def test_files_named_in_the_readme_exist():
    names = re.findall(r"`((?:tfcompress|android_bench|scripts|tests)/[\w/.]+)`", README)
    assert len(names) > 8
    for name in names:
        assert (Path(__file__).parent.parent / name).exists(), name
