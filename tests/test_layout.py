"""The rooms: imports go one way, files stay small, nothing dangerous, every command answers --help."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
BENCH = ("result", "host", "side_by_side", "stats", "store", "metrics")  # what tfcompress may take from android_bench
# Each room may import from its own row and the rows above it.
ORDER = [
    ["_version", "arrays", "flatbuffer", "weights", "programme", "launch"],
    ["method", "schedules", "layout"],
    ["batch_norm", "chain", "quantization.uniform", "quantization.float16", "wrapper"],
    ["copies", "model", "graph"],
    ["callback", "distribute"],
    ["pruning", "quantization", "distillation", "lowrank", "kept", "tuning"],
    ["keras2", "keras2_ops", "keras2_check", "legacy"],
    ["packing", "pack"],
    ["conversion", "convert"],
    ["macs", "gpu", "measure", "inspect", "diff", "study.verdict", "gains"],
    ["cut", "budget", "search", "mixed"],
    ["data_free"],
    ["datasets", "zoo", "stages", "recipes", "training"],
    ["tasks"],
    ["study"],
    ["job"],
    ["commands"],
    ["cli"],
]


def sources(*folders):
    return sorted(p for folder in folders for p in (TOP / folder).rglob("*.py"))


def rank(module):
    """The row of a module, by its longest name in ORDER."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        for row, names in enumerate(ORDER):
            if name in names:
                return row
    raise AssertionError(f"tfcompress.{module} has no row in ORDER: say where it belongs")


def imported(path):
    """Modules that a file imports at any depth, as absolute names."""
    package = list(path.relative_to(TOP).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:-node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names
                        if (TOP / name.replace(".", "/") / f"{alias.name}.py").exists())


@pytest.mark.parametrize("path", sources("tfcompress"), ids=lambda p: str(p.relative_to(TOP)))
def test_imports_go_one_way(path):
    own = ".".join(path.relative_to(TOP / "tfcompress").with_suffix("").parts).removesuffix("__init__").rstrip(".")
    if not own:
        return
    for name in imported(path):
        if name.startswith("tfcompress."):
            other = name.removeprefix("tfcompress.")
            assert rank(other) <= rank(own), f"{own} imports {other}, a later room"
        assert not name.startswith("android_bench.") or name.split(".")[1] in BENCH, name


def test_android_bench_imports_nothing_of_tfcompress():
    for path in sources("android_bench"):
        assert not any(name.split(".")[0] in ("tfcompress", "tensorflow", "keras") for name in imported(path)), path


def test_files_and_functions_stay_small():
    long = []
    for path in sources("tfcompress", "android_bench", "scripts"):
        tree, lines = ast.parse(path.read_text()), len(path.read_text().splitlines())
        long += [f"{path.name}: {lines} lines"] if lines > 300 else []
        long += [f"{path.name}:{n.name}: {n.end_lineno - n.lineno + 1} lines" for n in ast.walk(tree)
                 if isinstance(n, ast.FunctionDef) and n.end_lineno - n.lineno >= 60]
    assert not long


def test_nothing_dangerous_or_nameless():
    banned = re.compile(r"allow_pickle=True|pickle\.load|shell=True|os\.system\(|except:|\.\./shared")
    for path in sources("tfcompress", "android_bench", "scripts"):
        assert path.stem not in ("utils", "helpers", "misc", "common")
        assert not banned.search(path.read_text()), f"{path}: {banned.search(path.read_text())[0]}"


def test_top_level_is_what_the_user_fixed():
    allowed = {"setup.cfg", "setup.py", "tfcompress", "android_bench", "tests", "scripts", "README.md", "LICENSE"}
    tracked = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in tracked if not name.startswith(".")} <= allowed


def test_every_public_name_is_there_and_documented():
    import tfcompress
    for name in tfcompress.__all__:
        value = getattr(tfcompress, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), name
        assert name == "__version__" or callable(value), f"{name} is hidden by a module of that name"


@pytest.mark.parametrize("module", ["tfcompress.cli", "android_bench.cli"])
def test_help_answers_without_waiting_for_tensorflow(module):
    code = f"import sys; from {module} import main; main(['--help']); sys.exit('tensorflow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP)
    assert found.returncode == 0 and "tflite" in found.stdout, found.stderr
