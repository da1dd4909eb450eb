"""Rows survive a kill: none lost, none doubled, no torn line."""

import os
import signal
import subprocess
import sys
import time

import pytest

from android_bench.store import Store, only_one, remember_config, write_file


def row(number):
    return {"id": f"P{number}", "device": "host", "accuracy": number / 100}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "rows.jsonl", key=("id", "device"))


def test_rows_come_back_in_order(store):
    assert store.read() == []
    for number in (70, 80):
        store.append(row(number))
    assert store.read() == [row(70), row(80)]
    assert ("P70", "host") in store and ("P70", "phone") not in store


@pytest.mark.parametrize("torn", [b'{"id": "P8', b'{"id": "P80", "device": "host"}', b"\xff\x00", b"{"])
def test_a_torn_last_line_is_dropped_and_cut_off_by_the_next_append(store, torn):
    store.append(row(70))
    with open(store.path, "ab") as file:
        file.write(torn)
    assert store.read() == [row(70)]
    store.append(row(80))
    assert store.path.read_bytes().count(b"\n") == 2
    assert store.read() == [row(70), row(80)]


def test_a_file_that_is_only_torn(store):
    store.path.write_bytes(b'{"id"')
    assert store.read() == []
    store.append(row(70))
    assert store.read() == [row(70)]


def test_a_row_is_written_once(store):
    store.append(row(70))
    with pytest.raises(ValueError, match="already holds the row .'P70', 'host'."):
        store.append(row(70) | {"accuracy": 0.1})
    assert store.read() == [row(70)]


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(store):
    store.append(row(70))
    store.path.write_bytes(store.path.read_bytes() + b"oops\n")
    with pytest.raises(ValueError, match="line 2: expected a JSON object"):
        store.read()


def test_nan_is_refused_and_leaves_nothing(store):
    with pytest.raises(ValueError, match="JSON"):
        store.append(row(70) | {"accuracy": float("nan")})
    assert store.read() == []


def test_rows_are_rewritten_at_once_or_not_at_all(store):
    store.append(row(70))
    with pytest.raises(ValueError, match="JSON"):
        store.rewrite([row(80), row(90) | {"accuracy": float("nan")}])
    assert store.read() == [row(70)]
    store.rewrite([row(80), row(90)])
    assert store.read() == [row(80), row(90)]


def test_a_writer_killed_at_any_moment_leaves_whole_rows(store):
    code = (
        "import sys; from android_bench.store import Store\n"
        "store = Store(sys.argv[1], key=('id',))\n"
        "print('go', flush=True)\n"
        "for n in range(10**6): store.append({'id': n, 'text': 'x' * 5000})"
    )
    started = subprocess.Popen([sys.executable, "-c", code, store.path], stdout=subprocess.PIPE)
    started.stdout.readline()
    time.sleep(0.3)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    ids = [found["id"] for found in Store(store.path).read()]
    assert ids == list(range(len(ids))) and ids


def test_another_configuration_is_refused(tmp_path):
    remember_config(tmp_path, {"seed": 0, "rates": (1e-3,)})
    remember_config(tmp_path, {"seed": 0, "rates": (1e-3,)})
    with pytest.raises(ValueError, match=r"configuration \(seed: 0 -> 1\)"):
        remember_config(tmp_path, {"seed": 1, "rates": (1e-3,)})


def test_what_changed_is_told_in_a_few_words(tmp_path):
    old = {"job": {"data": "/long" * 20 + "/one.npz"}, "stages": [{"keep": 0.7}, {"epochs": 3}], "more": None}
    remember_config(tmp_path, old)
    new = {"job": {"data": "/long" * 20 + "/two.npz"}, "stages": [{"keep": 0.7}, {"epochs": 4}]}
    with pytest.raises(ValueError, match=r"one.npz' -> .*two.npz'; stages.1.epochs: 3 -> 4; more: None -> 'nothing'\)"):
        remember_config(tmp_path, new)
    remember_config(tmp_path, old)


def test_a_folder_serves_one_study_at_a_time(tmp_path):
    with only_one(tmp_path):
        with pytest.raises(RuntimeError, match="Another process"):
            with only_one(tmp_path):
                pass
    with only_one(tmp_path):
        pass


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError, match="x"):
        write_file(tmp_path / "x", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
