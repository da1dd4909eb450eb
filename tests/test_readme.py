"""The README's tour runs as it stands, and its method table names files that exist."""

import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.slow
def test_tour_runs(tmp_path, monkeypatch, capsys):
    code, filters, factors, teacher, bits = re.findall(r"```python\n(.*?)```", README, re.S)
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


def test_files_named_in_the_readme_exist():
    names = re.findall(r"`((?:tfcompress|android_bench|scripts|tests)/[\w/.]+)`", README)
    assert len(names) > 8
    for name in names:
        assert (Path(__file__).parent.parent / name).exists(), name
