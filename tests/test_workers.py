"""Several workers on 127.0.0.1 train what one process with the whole batch trains; a killed one costs an epoch."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import worker_jobs

import tfcompress as tc
from tfcompress import distribute
from tfcompress.launch import train
from tfcompress.wrapper import read

HERE = Path(__file__).parent


def start(*argv):
    """``tfcompress train`` or a job, in processes of its own: ``(exit code, output, errors)``."""
    done = subprocess.run([sys.executable, *map(str, argv)], capture_output=True, text=True, cwd=HERE, timeout=300,
                          env=os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "PYTHONPATH": str(HERE.parent)})
    return done.returncode, done.stdout, done.stderr


def command(*argv):
    return start("-m", "tfcompress.cli", "train", *argv)


def furthest(a, b):
    """The largest difference of all arrays of two files, which have the same names."""
    names = [name for name in a.files if name != "error_of_keras"]
    assert set(names) == {name for name in b.files if name != "error_of_keras"}
    return max(float(np.abs(a[name].astype("float64") - b[name]).max(initial=0)) for name in names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    code, _, errors = start("worker_jobs.py", "alone", folder)
    assert code == 0, errors[-2000:]
    return folder


@pytest.mark.slow
def test_two_replicas_of_a_process_train_what_it_alone_trains(folder):
    alone = np.load(folder / "alone.npz")
    assert sum("mask" in name for name in alone.files) == 2 and sum("range" in name for name in alone.files) == 4
    assert (alone["pruned conv/kernel_mask"] == 0).mean() == 0.75 and alone["admm conv/kernel_frozen"] == 1
    assert furthest(alone, np.load(folder / "mirrored.npz")) < 1e-5


@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(folder):
    code, _, errors = command("--workers", 2, "worker_jobs.py", "workers", folder)
    assert code == 0, errors[-2000:]
    first, second = (np.load(folder / f"worker{i}.npz") for i in (0, 1))
    assert furthest(first, np.load(folder / "alone.npz")) < 1e-5
    assert furthest(first, second) == 0                  # masks, duals, codes and ranges among them
    assert "PerReplica" in str(first["error_of_keras"]), "Keras has changed: is distribute._Workers still needed?"


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_ends_bit_by_bit_as_if_it_had_lived(tmp_path):
    code, _, errors = command("--restarts", 1, "worker_jobs.py", "killed", tmp_path)
    assert code == 0, errors[-2000:]
    assert "worker 1 was killed by SIGKILL: starting all workers again (1 of 1)" in errors
    whole, resumed = (dict(np.load(tmp_path / f"{name}0.npz")) for name in ("whole", "resumed"))
    assert whole.pop("first") == 0 and resumed.pop("first") == 2
    for (name, a), b in zip(whole.items(), resumed.values(), strict=True):
        np.testing.assert_array_equal(a, b, name)
    assert furthest(*(np.load(tmp_path / f"resumed{i}.npz") for i in (0, 1))) == 0


@pytest.mark.slow
def test_a_strategy_after_other_work_says_what_to_do():
    code = "import tensorflow as tf; tf.constant(1) + 1; from tfcompress import distribute; distribute.strategy()"
    task = {"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parent, timeout=60,
                           env=os.environ | {"TF_CONFIG": json.dumps(task)})
    assert found.returncode == 1
    assert "TensorFlow has worked already. Call tfcompress.distribute.strategy() first" in found.stderr


# ---- the launcher, with scripts that need no TensorFlow -------------------------------------------------------------
def script(folder, text):
    path = folder / "script.py"
    path.write_text("import json, os, sys, time\nfrom pathlib import Path\n"
                    "task = json.loads(os.environ['TF_CONFIG'])\nindex = task['task']['index']\n" + text)
    return path


def test_workers_know_each_other_and_the_chief_speaks(tmp_path):
    path = script(tmp_path, "Path(sys.argv[1], f'{index}.json').write_text(json.dumps([task, sys.argv[2:]]))\n"
                            "print('worker', index)")
    code, output, errors = command("--workers=3", path, tmp_path, "--help", "--workers")
    assert (code, output, errors) == (0, "worker 0\n", "")
    told = [json.loads((tmp_path / f"{i}.json").read_text()) for i in range(3)]
    assert [task["task"] for task, _ in told] == [{"type": "worker", "index": i} for i in range(3)]
    assert len({json.dumps(task["cluster"]) for task, _ in told}) == 1
    assert len(set(told[0][0]["cluster"]["worker"])) == 3 and told[0][1] == ["--help", "--workers"]


def test_one_that_fails_ends_all_and_is_heard(tmp_path):
    path = script(tmp_path, "if index == 1: sys.exit('no such data')\ntime.sleep(60)")
    began = time.monotonic()
    code, _, errors = command("--restarts", 1, path)
    assert code == 1 and time.monotonic() - began < 30
    assert errors.count("worker 1 ended with exit code 1. It said last:\nno such data\n") == 2
    assert errors.count("starting all workers again (1 of 1)") == 1


def test_a_machine_of_many_runs_its_worker(tmp_path):
    path = script(tmp_path, "print(index, *task['cluster']['worker'])")
    assert command("--hosts", "a:1,b:2", "--index", 1, path)[:2] == (0, "1 a:1 b:2\n")


def test_sigterm_ends_all(tmp_path):
    path = script(tmp_path, "Path(sys.argv[1], f'{index}.pid').write_text(str(os.getpid()))\ntime.sleep(60)")
    running = subprocess.Popen([sys.executable, "-m", "tfcompress.cli", "train", path, tmp_path], cwd=HERE.parent)
    pids = [tmp_path / "0.pid", tmp_path / "1.pid"]
    end = time.monotonic() + 30
    while not all(pid.exists() and pid.read_text() for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    running.terminate()
    assert running.wait(20) == 143
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_a_lone_worker_has_no_tf_config(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    (tmp_path / "script.py").write_text("import os, sys\nsys.exit('TF_CONFIG' in os.environ)")
    assert train([str(tmp_path / "script.py")]) == 0


# ---- the chief, and the backup, in one process ----------------------------------------------------------------------
@pytest.mark.parametrize("config, chief", [
    ("", True), ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}', True),
    ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}', False),
    ('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}', False),
    ('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}', True)])
def test_who_is_chief(config, chief, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    assert distribute.is_chief() is chief


def test_a_tf_config_that_is_none(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "[1")
    with pytest.raises(ValueError, match=r"TF_CONFIG is JSON.*Received: '\[1'"):
        distribute.is_chief()


def small(units=2):
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="out")])
    model = tc.compress(net, tc.Prune(tc.Polynomial(0.5, 0, 4)), include_head=True)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def test_a_run_goes_on_from_its_backup(tmp_path):
    x, y = np.random.default_rng(1).standard_normal((2, 8, 3)).astype("float32")
    y = y[:, :2]

    def fit(model, path, epochs):
        backup = distribute.Backup(path, every=2)
        first = backup.restore(model)
        model.fit(x, y, batch_size=4, epochs=epochs, initial_epoch=first, shuffle=False, verbose=0,
                  callbacks=[tc.CompressionCallback(), backup])
        return first, [read(v) for v in distribute._variables(model)]

    model = small()
    start_values = model.get_weights()
    _, whole = fit(model, tmp_path / "whole.npz", 5)
    model = small()
    model.set_weights(start_values)
    assert fit(model, tmp_path / "half.npz", 3)[0] == 0  # its last backup is of epoch 2
    first, resumed = fit(small(), tmp_path / "half.npz", 5)
    assert first == 2 and all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert fit(small(), tmp_path / "half.npz", 4)[0] == 4 and len(list(tmp_path.iterdir())) == 2


def test_a_backup_that_does_not_fit(tmp_path):
    path = tmp_path / "net.npz"
    model = small()
    backup = distribute.Backup(path)
    backup.restore(model)
    backup.set_model(model)
    backup.on_epoch_end(0)
    with pytest.raises(ValueError, match="of another model or optimizer. Received: .* Delete it to train"):
        backup.restore(small(units=3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="was not written by Backup"):
        backup.restore(small())
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="was not written by Backup"):
        backup.restore(small())
    with pytest.raises(ValueError, match="has no optimizer: compile it"):
        backup.restore(worker_jobs.net())
    with pytest.raises(ValueError, match="Received: every=0"):
        distribute.Backup(path, every=0)
