"""The program benchmark_model: what it is, where it comes from, who may run it; and the lock of a phone."""

import http.server
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from emulated_phone.binary import make_binary
from emulated_phone.personalities import ARM32, X86_64

from android_bench import binary
from android_bench.binary import NoBinary, choose, known_flags, locate, read_binary
from android_bench.lock import Busy, hold

HELP = Path(__file__).parent / "golden/benchmark_model/help.txt"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANDROID_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("machine, name, abis", [
    (183, "64-bit ARM", ("arm64-v8a",)), (ARM32, "32-bit ARM", ("armeabi-v7a", "armeabi")),
    (X86_64, "x86-64", ("x86_64",)), (3, "32-bit x86", ("x86",)),
])  # fmt: skip
def test_the_elf_header_says_which_phones_run_it(tmp_path, machine, name, abis):
    found = read_binary(make_binary(tmp_path / "b", machine))
    assert (found.machine, found.abis, found.litert2) == (name, abis, False)
    assert read_binary(make_binary(tmp_path / "b", machine, tool="litert2")).litert2


@pytest.mark.parametrize("content, words", [
    (b"PK\x03\x04" + bytes(100), "starts with b'PK.*an .apk"),
    (b"#!/bin/sh\necho hello\n", "Expected an Android program"),
    (b"<html>404</html>", "or a web page"),
    (b"", "starts with b''"),
    (b"\x7fELF", "Expected an Android program"),
    (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xf3\x00" + bytes(50), r"ELF machine 243; phones run 64-bit ARM"),
    (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(50), "PIE"),
    (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\x00\xb7\x00" + bytes(50), "PIE"),
])  # fmt: skip
def test_what_is_no_program_for_a_phone_is_refused_in_words(tmp_path, content, words):
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(NoBinary, match=words):
        read_binary(tmp_path / "b")


@pytest.mark.parametrize("name", ["missing", "."])
def test_no_file(tmp_path, name):
    with pytest.raises(NoBinary, match="which is not a file"):
        read_binary(tmp_path / name)


def test_the_flag_goes_before_the_environment_and_without_both_the_message_says_where_to_get_one(tmp_path):
    first, second = make_binary(tmp_path / "a"), make_binary(tmp_path / "b", ARM32)
    environment = {"ANDROID_BENCH_BINARY": f"{first},{second}"}
    assert [found.machine for found in locate([], environment)] == ["64-bit ARM", "32-bit ARM"]
    assert [found.machine for found in locate([str(second)], environment)] == ["32-bit ARM"]
    for nothing in ({}, {"ANDROID_BENCH_BINARY": ""}, {"ANDROID_BENCH_BINARY": ","}):
        with pytest.raises(NoBinary, match="No benchmark_model was named.*Fetch https://.*--benchmark-binary"):
            locate([], nothing)


def test_a_phone_gets_the_program_for_the_best_abi_that_there_is_one_for(tmp_path):
    arm32, arm64 = read_binary(make_binary(tmp_path / "a", ARM32)), read_binary(make_binary(tmp_path / "b"))
    new, old = ("arm64-v8a", "armeabi-v7a"), ("armeabi-v7a", "armeabi")
    assert choose([arm32, arm64], new, "P") == (arm64, "arm64-v8a")
    assert choose([arm32], new, "P") == (arm32, "armeabi-v7a")
    assert choose([arm64, arm32], old, "P") == (arm32, "armeabi-v7a")
    with pytest.raises(NoBinary, match=r"Tab runs armeabi-v7a, armeabi; the binaries given are 64-bit ARM \(b\). Add "
                                       r"--benchmark-binary https://.*android_arm_benchmark_model"):  # fmt: skip
        choose([arm64], old, "Tab")
    with pytest.raises(NoBinary, match="runs an unknown ABI"):
        choose([arm64], (), "P")


def test_the_flags_of_the_real_tools_help():
    flags = known_flags(HELP.read_text())
    assert {"graph", "num_threads", "use_xnnpack", "input_layer_value_files", "output_filepath"} <= flags
    assert len(flags) > 40 and known_flags("sh: not executable: 64-bit ELF file") == frozenset()


class Site(http.server.BaseHTTPRequestHandler):
    """/program, /page, /large, /short (breaks off); everything else is missing."""

    content, asked = b"", []

    def do_GET(self):
        Site.asked.append(self.path)
        pages = {"/program": Site.content, "/page": b"<html>sign in</html>", "/large": Site.content * 3,
                 "/short": Site.content}  # fmt: skip
        if self.path not in pages:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(pages[self.path])))
        self.end_headers()
        self.wfile.write(pages[self.path][: 100 if self.path == "/short" else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    Site.content, Site.asked = make_binary(tmp_path / "served").read_bytes(), []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_url_is_fetched_once_and_kept_by_its_sha256(site, cache):
    (first,), (second,) = locate([f"{site}/program"]), locate([f"{site}/program"])
    assert first == second and Site.asked == ["/program"]
    assert Path(first.path) == cache / "binaries" / first.sha256
    Path(first.path).write_bytes(b"spoiled")
    assert locate([f"{site}/program"]) == [first] and Site.asked == ["/program"] * 2


@pytest.mark.parametrize("page, words", [
    ("/page", "is no program"), ("/none", "can't be fetched .*404.* Download it elsewhere"),
    ("/large", "is larger than 10000 bytes"), ("/short", "broke off after 100 of 4000 bytes"),
])  # fmt: skip
def test_what_a_url_can_give_instead_is_one_sentence_and_nothing_is_kept(site, cache, page, words, monkeypatch):
    monkeypatch.setattr(binary, "MAX_BYTES", 10_000)
    with pytest.raises(NoBinary, match=words):
        locate([site + page])
    assert not list(cache.rglob("*.*"))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://", "https://[::1", "http://a b/", "http://127.0.0.1:x/"])
def test_a_url_that_leads_nowhere(url):
    with pytest.raises(NoBinary, match="can't be fetched"):
        locate([url])


def test_a_lock_keeps_others_out_and_its_file_is_gone_afterwards(cache):
    with hold("ABC"):
        with pytest.raises(Busy, match="Another android-bench uses ABC: wait for it, or stop it"):
            with hold("ABC"):
                pass
        with hold("other"):
            assert len(list(cache.rglob("*.lock"))) == 2
    with hold("ABC"):
        pass
    assert not list(cache.rglob("*.lock"))


@pytest.mark.parametrize("serial", ["../../evil", "a/b", "$(touch x)", "a\nb", "", "x" * 3000, "模型"])
def test_a_hostile_serial_is_no_path(cache, tmp_path, serial):
    with hold(serial):
        (path,) = tmp_path.rglob("*.lock")
        assert path.parent == cache / "locks"
    assert not list(tmp_path.rglob("*.lock"))


def _hold_for_ever(ready):
    with hold("ABC"):
        ready.set()
        time.sleep(60)


def test_a_kill_frees_the_lock(cache):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_hold_for_ever, args=(ready,))
    process.start()
    assert ready.wait(10)
    with pytest.raises(Busy):
        with hold("ABC"):
            pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with hold("ABC"):
        pass
    assert not list(cache.rglob("*.lock"))


def test_never_two_holders_however_they_race(cache):
    inside, most, errors = [], [], []

    def work():
        for _ in range(200):
            try:
                with hold("ABC"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except Busy:
                pass
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and not errors and not list(cache.rglob("*.lock"))
