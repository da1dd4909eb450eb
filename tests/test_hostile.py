"""Names that look like commands, and phones that lie: nothing is run, nothing is lost, the other phone completes."""

import os
import re
import tracemalloc

import numpy as np
import pytest
import tiny_files
from emulated_phone.binary import make_binary
from emulated_phone.personalities import PIXEL, XIAOMI
from emulated_phone.sync import Sync
from phone_farm import QUICK, farm

from android_bench.adb import Phone, Server
from android_bench.adb_errors import AdbError
from android_bench.bench import Incomplete
from android_bench.phones import choose, survey
from android_bench.result import read_rows
from android_bench.settings import Wanted

NAMES = [
    "it's \"quoted\"", ";touch canary;$(touch canary)", "`touch canary`\ntouch canary\n", "--graph=größe 模型",
    "<img src=x onerror=alert(1)>\x1b[2J%s", "line\u2028after\u2029line\x85end",
]  # fmt: skip
X = np.array([[1, 0], [3, 1], [5, 4]], np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that is also the current one, with a model and its data."""
    (tmp_path / "plain.tflite").write_bytes(tiny_files.matmul())
    np.savez(tmp_path / "eval.npz", x=X, y=np.array([2, 2, 0]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_canary(folder):
    return not [path for path in folder.rglob("*") if path.name == "canary"]


def test_hostile_names_are_names(here):
    folder = here / "my models; touch canary"
    folder.mkdir()
    files = [folder / f"{name}.tflite" for name in NAMES] + [os.fsdecode(os.fsencode(folder) + b"/\xff.tflite")]
    for file in files:
        with open(file, "wb") as out:
            out.write(tiny_files.matmul())
    data = folder / "$(touch canary) 'data';\n.npz"
    (here / "eval.npz").rename(data)
    library = folder / "lib $(touch canary);'x'\n.so"
    library.write_bytes(b"library")
    with farm(here, PIXEL) as phones:
        program = make_binary(folder / "bench $(touch canary);'mark'")
        rows = phones.measure(files, here / "out $(touch canary) ;'", eval=str(data), library=(str(library),),
                              benchmark_binary=(str(program),))  # fmt: skip
        assert {row.id for row in rows} == {*NAMES, "\ufffd"} and len(rows) == 7
        for row in rows:
            assert (row.error, row.accuracy, row.facts["host_max_difference"]) == (None, 2 / 3, 0), row.id
            assert row.latency_p50_us is not None
        processes, left = phones.phones[0].leftovers()
        assert not processes and all(file.startswith("android_bench/lib/") for file in left)  # libraries stay pushed
        assert f"android_bench/lib/{library.name}" in left
        assert no_canary(here)
    page = (here / "out $(touch canary) ;'" / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x" in page


def test_delegates_and_choices_of_phones_are_names_too(here):
    with farm(here, PIXEL) as phones:
        delegates = ("external:/x.so;$(touch canary):`touch canary`", "nnapi:';touch canary;'")
        rows = phones.measure(["plain.tflite"], here / "out", delegate=delegates)
        assert {row.facts["delegate_asked"]: row.error for row in rows} == dict.fromkeys(delegates)
        assert no_canary(here)
        with pytest.raises(ValueError, match=re.escape("'$(touch canary)'")):
            phones.measure(["plain.tflite"], here / "out", device=("$(touch canary)",))


def test_noise_and_evil_names_in_a_list_harm_that_job_only(here):
    with farm(here, PIXEL, XIAOMI) as phones:
        loud, quiet = phones.phones
        loud.fault("noise", megabytes=50, match="nohup")
        loud.fault("evil_paths", times=20)
        quiet.fault("evil_paths", times=20)
        with pytest.raises(Incomplete, match="Pixel 7: 1 jobs failed"):
            phones.measure(["plain.tflite"], here / "out", eval="eval.npz", repetitions=2)
        by_name = {row.device: row for row in read_rows(here / "out")}
        good, bad = by_name["POCO F5"], by_name["Pixel 7"]
        assert (good.error, good.accuracy, good.facts["host_max_difference"]) == (None, 2 / 3, 0)
        assert len(good.facts["repetitions"]) == 2 and "failures" not in good.facts
        (failure,) = bad.facts["failures"]
        assert "more than 8000000 bytes: not an answer of ours" in failure
        assert (len(bad.facts["repetitions"]), bad.error) == (1, None)
        assert bad.accuracy == 2 / 3
        assert [phone.leftovers() for phone in phones.phones] == [([], [])] * 2
        (root := here / "out").joinpath("canary-check").touch()
        assert {path.name for path in root.iterdir()} == {
            ".lock", "canary-check", "config.json", "devices.json", "jobs.jsonl", "logs", "report.csv", "report.html",
            "report.jsonl", "rows.jsonl"}  # fmt: skip
        assert len(list(root.glob("logs/*.txt"))) == len(list(root.glob("logs/*"))) == 3


def test_ansi_codes_before_an_answer_reach_no_terminal_and_no_row(here):
    with farm(here, PIXEL) as phones:
        for match in ("getprop", "dumpsys thermalservice", "--help", "settings get", "@@rc"):
            phones.phones[0].fault("noise", megabytes=0.2, match=match)
        (row,) = phones.measure(["plain.tflite"], here / "out", eval="eval.npz")
        assert row.device == "Pixel 7" and (row.error, row.accuracy) == (None, 2 / 3)
        for file in ("rows.jsonl", "jobs.jsonl", "devices.json"):
            text = (here / "out" / file).read_text()
            assert "\x1b" not in text and "\\u001b" not in text, file


def test_a_refusal_in_evil_words_reaches_no_terminal_and_harms_no_row(here, capsys):
    with farm(here, PIXEL, XIAOMI) as phones:
        liar = phones.phones[0].root / "bin/mv"
        liar.write_text('#!/bin/sh\ncase "$*" in *models*) printf "a\\342\\200\\250b\\033[2Jc\\n"; exit 1;; esac\n'
                        'exec /bin/mv "$@"\n')  # fmt: skip
        liar.chmod(0o755)
        with pytest.raises(Incomplete, match="Pixel 7: 1 jobs failed"):
            phones.measure(["plain.tflite"], here / "out")
        by_name = {row.device: row for row in read_rows(here / "out")}
        assert by_name["POCO F5"].error is None and "a b [2Jc" in by_name["Pixel 7"].error
        for file in ("rows.jsonl", "jobs.jsonl", "report.html"):
            assert "\x1b" not in (here / "out" / file).read_text(), file


def test_a_pulled_file_larger_than_expected_is_refused_and_the_latency_stays(here):
    with farm(here, PIXEL, XIAOMI) as phones:
        liar = phones.phones[0].root / "bin/mv"
        liar.write_text('#!/bin/sh\n/bin/mv "$@"\n[ "$2" != outputs ] || head -c 50000000 /dev/zero >>outputs\n')
        liar.chmod(0o755)
        with pytest.raises(Incomplete, match="Pixel 7: 1 jobs failed"):
            phones.measure(["plain.tflite"], here / "out", eval="eval.npz")
        by_name = {row.device: row for row in read_rows(here / "out")}
        assert by_name["POCO F5"].accuracy == 2 / 3 and "accuracy_note" not in by_name["POCO F5"].facts
        bad = by_name["Pixel 7"]
        assert bad.accuracy is None and bad.latency_p50_us is not None
        assert "outputs is larger than the 36 bytes expected" in bad.facts["accuracy_note"]


def test_a_length_that_lies_takes_no_memory(here, monkeypatch):
    def lie(self, *_):
        self.stream.write(b"DATA\xff\xff\xff\xff")
        for _ in range(100):
            self.stream.write(bytes(1_000_000))

    monkeypatch.setattr(Sync, "_receive", lie)
    with farm(here, PIXEL) as phones:
        phone = Phone(Server(phones.address), phones.phones[0].address)
        tracemalloc.start()
        with pytest.raises(AdbError):
            phone.pull("/data/local/tmp/x", 1000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5e6


def test_what_a_phone_says_of_itself_is_never_run_nor_a_path(here):
    with farm(here, PIXEL) as phones:
        phone = phones.phones[0]
        file = phone.root / "state/getprop"
        lies = {
            "ro.serialno": "../../evil;touch canary", "ro.boot.serialno": "$(touch canary)",
            "ro.product.model": "$(touch canary)\x1b[2J<img src=x onerror=alert(1)>",
            "ro.build.fingerprint": "`touch canary`",
        }  # fmt: skip
        text = file.read_text()
        for name, value in lies.items():
            text = re.sub(rf"^\[{re.escape(name)}\]: .*\n", "", text, flags=re.M) + f"[{name}]: [{value}]\n"
        file.write_text(text)
        settings = {"system/screen_brightness": "5; touch canary", "system/screen_off_timeout": "$(touch canary)",
                    "global/stay_on_while_plugged_in": "0\ntouch canary"}  # fmt: skip
        for name, value in settings.items():
            (phone.root / "state/settings" / name).write_text(value)
        before = phone.settings()
        (found,) = choose(survey([Server(phones.address)]), [])
        assert found.serial == "../../evil;touch canary" and "\x1b" not in found.label
        (row,) = phones.measure(["plain.tflite"], here / "out", eval="eval.npz", wishes=QUICK,
                                wanted=Wanted(True, 100, True))  # fmt: skip
        assert row.error is None and row.facts["serial"] == "../../evil;touch canary"
        assert phone.settings() | {"fixed_performance": ""} == before  # "false", which it was not told before
        assert phone.leftovers() == ([], [])
        assert no_canary(here) and not list(here.rglob("*.lock"))[1:]
        assert "<img src=x" not in (here / "out/report.html").read_text()
