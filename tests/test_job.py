"""What is to be run, and in which order."""

import os

import pytest

from android_bench.job import Configuration, Job, Model, models, plan

CONTENT = b"\x1c\0\0\0TFL3" + bytes(20)


@pytest.fixture
def write(tmp_path):
    def write_it(name, content=CONTENT):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    return write_it


def configurations(names, threads=(1,)):
    return [Configuration(Model(n, n, n), t, "cpu", "") for n in names for t in threads]


@pytest.mark.parametrize("name, content, words", [
    ("a.tflite", b"", "TFL3 at byte 4.*0 bytes"), ("a.tflite", b"TFL3", "4 bytes"),
    ("a.txt", b"hello, world", "Expected a .tflite file"), ("a.h5", b"\x89HDF\r\n\x1a\n", "Expected a .tflite file"),
])  # fmt: skip
def test_what_is_no_model_is_refused(write, name, content, words):
    with pytest.raises(ValueError, match=words):
        models([write(name, content)])


@pytest.mark.parametrize("name", ["missing.tflite", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(ValueError, match="which is not a file; check the path"):
        models([tmp_path / name])


def test_ids_are_the_files_names_and_the_folders_too_where_two_share_one(write):
    found = models([write("one/a.tflite"), write("two/a.tflite"), write("b.tflite")])
    assert [model.id for model in found] == ["one/a", "two/a", "b"]
    assert len({model.sha256 for model in found}) == 1  # equal bytes may be two models


def test_the_same_file_twice_is_refused_with_its_path(write):
    path = write("a.tflite")
    with pytest.raises(ValueError, match="same name more than once: .*a.tflite"):
        models([path, path])


@pytest.mark.parametrize("name", ["two words", "a'b", "$(touch x)", "a\nb", "--threads=9", "größe", "模型", "x.y"])
def test_an_id_is_the_name_whatever_it_looks_like(write, name):
    assert models([write(f"{name}.tflite")])[0].id == name


def test_a_name_that_is_no_text_makes_an_id_that_is(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.tflite"
    with open(path, "wb") as file:
        file.write(CONTENT)
    assert models([os.fsdecode(path)])[0].id.encode() == "\ufffd\ufffd".encode()


def test_latency_runs_in_shuffled_blocks_then_accuracy_then_sustain_then_energy():
    jobs = plan(configurations("abcdef"), repetitions=3, kinds=("energy", "latency", "accuracy", "sustain"), serial="S")
    assert [job.kind for job in jobs] == ["latency"] * 18 + ["accuracy"] * 6 + ["sustain"] * 6 + ["energy"] * 6
    blocks = [jobs[start : start + 6] for start in range(0, 36, 6)]
    assert [{job.repetition for job in block} for block in blocks] == [{0}, {1}, {2}, {0}, {0}, {0}]
    orders = ["".join(job.configuration.model.id for job in block) for block in blocks]
    assert all(sorted(order) == list("abcdef") for order in orders) and len(set(orders)) > 1
    assert len({job.key for job in jobs}) == 36


def test_the_order_follows_from_the_seed_and_the_serial():
    def order(**options):
        return [job.key for job in plan(configurations("abcdef"), **options)]

    assert order(seed=1, serial="S") == order(seed=1, serial="S")
    assert order(seed=1, serial="S") != order(seed=2, serial="S") != order(seed=2, serial="T")
    assert sorted(order(seed=1)) == sorted(order(seed=2))


def test_nothing_to_do_is_no_job():
    assert plan([], repetitions=3) == []


def test_a_key_tells_everything_apart():
    a, b = configurations("a", threads=(1, 2))
    assert a.key == ("a", "a", 1, "cpu", "") and b.key == ("a", "a", 2, "cpu", "")
    assert Job(a, "latency", 2).key == ("a", "a", 1, "cpu", "", "latency", 2)


def test_a_folder_whose_name_is_no_text_may_be_in_an_id(write, tmp_path):
    folders = [os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/\xff", b"/b")]
    for folder in folders:
        os.mkdir(folder)
        with open(f"{folder}/m.tflite", "wb") as file:
            file.write(CONTENT)
    assert [model.id for model in models([f"{folder}/m.tflite" for folder in folders])] == ["\ufffd/m", "b/m"]
