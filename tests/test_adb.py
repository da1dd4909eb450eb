"""adb.py against the real adb program with emulated phones behind it; parse_devices on real lines."""

import contextlib
import hashlib
import os
import socket
import stat
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from emulated_phone.personalities import PIXEL, TABLET
from emulated_phone.server import AdbServer
from phone_farm import farm

from android_bench.adb import Phone, Server, safe_name
from android_bench.adb_errors import AdbError, DeviceLost, DeviceTimeout, Stopped
from android_bench.transports import parse_devices

GOLDEN = Path(__file__).parent / "golden/phones/adb_devices_l.txt"
HERE = "/data/local/tmp/android_bench"


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("adb"), PIXEL, TABLET) as found:
        yield found


@pytest.fixture(params=["pixel", "tablet"])
def phone(phones, request):
    """Each of two phones: with and without shell protocol version 2."""
    index = ["pixel", "tablet"].index(request.param)
    return Phone(Server(phones.address), phones.phones[index].address)


@pytest.fixture
def pixel(phones):
    return Phone(Server(phones.address), phones.phones[0].address)


def test_every_real_line_of_adb_devices():
    found = parse_devices(GOLDEN.read_text())
    assert [(line.serial, line.state, line.tags.get("model")) for line in found] == [
        ("ebe3968d", "device", "CPH2641"),
        ("ZY32LL2X8W", "device", "moto_g86_5G"),
        ("R3CN123", "unauthorized", None),
        ("192.168.1.31:5555", "offline", None),
        ("adb-RFAX21TD0NA-FFYRNh._adb-tls-connect._tcp", "device", "SM_R930"),
        ("adb-4dbce859-JTTZD2 (2)._adb-tls-connect._tcp", "device", "23049PCD8G"),
        ("emulator-5554", "device", "sdk_gphone64_x86_64"),
        ("0123456789ABCDEF", "no permissions", None),
    ]
    assert [line.tags["transport_id"] for line in found] == list("12345678")
    advice = {line.serial: line.advice for line in found if line.advice}
    assert "Allow USB debugging" in advice["R3CN123"] and "udev" in advice["0123456789ABCDEF"]
    assert set(advice) == {"R3CN123", "192.168.1.31:5555", "0123456789ABCDEF"}


@pytest.mark.parametrize("line, serial, state", [
    ("my phone (3)._adb._tcp device", "my phone (3)._adb._tcp", "device"),
    ("(no serial number)     no permissions; see [http://x]", "(no serial number)", "no permissions"),
    ("device device", "device", "device"),
    ("X\tdevice", "X", "device"),
    ("A offline", "A", "offline"),
    ("A sideload", "A", "sideload"),
    ("A authorizing transport_id:1", "A", "authorizing"),
])  # fmt: skip
def test_odd_lines_of_adb_devices(line, serial, state):
    (found,) = parse_devices(f"List of devices attached\n{line}\n\n")
    assert (found.serial, found.state) == (serial, state)
    assert (found.advice is None) == (state == "device")


@pytest.mark.parametrize("text", ["", "\n\n", "List of devices attached\n", "* daemon started successfully\n", "x"])
def test_no_devices(text):
    assert parse_devices(text) == ()


@pytest.mark.parametrize("command, code, output", [
    ("echo hello", 0, "hello\n"),
    ("echo out; echo err >&2; exit 7", 7, "out\nerr\n"),
    ("printf 'no end'", 0, "no end"),
    ("false", 1, ""),
    ("printf 'a\\n\\n__ended_0=0\\n'", 0, "a\n\n__ended_0=0\n"),
    ("cat", 0, ""),
    ("nothing_of_that_name 2>/dev/null", 127, ""),
    ("printf '\\377\\376'", 0, "\ufffd\ufffd"),
    ("(", None, None),
    ("seq 20000 | tail -n 1", 0, "20000\n"),
])  # fmt: skip
def test_a_command_gives_its_own_code_and_output(phone, command, code, output):
    if code is None:  # the sh dies of the syntax error before the sentinel: an error, never a wrong code
        with pytest.raises(DeviceLost):
            phone.shell(command)
    else:
        done = phone.shell(command)
        assert (done.code, done.output) == (code, output)


def test_more_than_the_limit_is_an_error_and_harms_nothing(pixel, phones):
    phones.phones[0].fault("noise", megabytes=50, match="echo one")
    tracemalloc.start()
    with pytest.raises(AdbError, match="more than 8000000 bytes: not an answer of ours"):
        pixel.shell("echo one")
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
    assert pixel.shell("echo two").output == "two\n"


def test_a_command_that_hangs_ends_after_its_time(pixel, phones):
    phones.phones[0].fault("hang", match="echo hung")
    begin = time.monotonic()
    with pytest.raises(DeviceTimeout, match="within 1 s"):
        pixel.shell("echo hung", timeout=1)
    assert time.monotonic() - begin < 3


def test_a_link_that_drops_is_no_exit_code(pixel, phones):
    phones.phones[0].fault("drop_shell", after=0.2, match="sleep 5")
    with pytest.raises(DeviceLost):
        pixel.shell("sleep 5; echo done")
    pixel.wait(10, poll=0.1)
    assert pixel.shell("echo back").output == "back\n"


def test_the_users_stop_ends_a_wait_at_once(pixel):
    threading.Timer(0.2, pixel.stop.set).start()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        pixel.shell("sleep 20")
    assert time.monotonic() - begin < 2


def test_equal_bytes_are_pushed_once_and_changed_ones_always(phone, phones, tmp_path, monkeypatch):
    pushed = []
    send = Phone._send
    monkeypatch.setattr(Phone, "_send", lambda self, *rest: (pushed.append(rest[1]), send(self, *rest)))
    file = tmp_path / "model.tflite"
    file.write_bytes(b"first!")
    first = phone.push(file, f"{HERE}/models")
    assert first == f"{HERE}/models/model.tflite-{hashlib.sha256(b'first!').hexdigest()}"
    assert phone.push(file, f"{HERE}/models") == first and len(pushed) == 1
    file.write_bytes(b"second")
    second = phone.push(file, f"{HERE}/models")
    assert second != first and len(pushed) == 2
    assert phone.shell(f"cat {first} {second}").output == "first!second"
    phone.shell(f"printf torn >{first}")  # its name lies now
    file.write_bytes(b"first!")
    phone = Phone(phone.server, phone.serial)  # what it pushed itself it looks at once only
    assert phone.push(file, f"{HERE}/models") == first and phone.shell(f"cat {first}").output == "first!"
    assert ".part" not in phone.shell(f"ls {HERE}/models").output


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 1000, b"\r\n" * 100], ids=["empty", "bytes", "line ends"])
def test_bytes_come_back_as_they_were_sent(phone, tmp_path, content):
    (tmp_path / "data").write_bytes(content)
    path = phone.push(tmp_path / "data", f"{HERE}/data")
    assert phone.pull(path, len(content)) == content


def test_a_file_larger_than_expected_is_refused_before_it_is_all_here(pixel):
    pixel.shell(f"mkdir -p {HERE}; head -c 60000000 /dev/zero >{HERE}/large")
    tracemalloc.start()
    with pytest.raises(AdbError, match=f"{HERE}/large is larger than the 1000 bytes expected"):
        pixel.pull(f"{HERE}/large", 1000)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert pixel.shell(f"rm {HERE}/large; echo on").output == "on\n"


@pytest.mark.parametrize("path", [f"{HERE}/none", "/etc/passwd/../../../../../etc/passwd", HERE, "", "a\nb", "-x"])
def test_what_can_not_be_pulled_is_an_error_of_ours(phone, path):
    with pytest.raises(AdbError):
        phone.pull(path, 1000)


@pytest.mark.parametrize("name", [
    "two 'words'.tflite", "a;touch canary;\"b.tflite", "$(touch canary).tflite", "`touch canary`.tflite",
    "a\ntouch canary\n.tflite", "-rf.tflite", "..tflite", "größe 模型.tflite", "*.tflite", "x" * 250,
    "\x1b[31m%s%n\\n&|<>",
])  # fmt: skip
def test_a_files_name_is_never_a_command(pixel, phones, tmp_path, name):
    (tmp_path / name).write_bytes(b"content")
    path = pixel.push(tmp_path / name, f"{HERE}/models")
    assert path.startswith(f"{HERE}/models/") and "/" not in path.removeprefix(f"{HERE}/models/")
    assert pixel.pull(path, 100) == b"content"
    assert not list(phones.root.rglob("canary"))


@pytest.mark.parametrize("name, safe", [
    ("C0.tflite", "C0.tflite"), ("../../x", "_.._x"), ("-rf", "rf"), ("", "file"), ("...", "file"), ("模型", "_"),
    ("a" * 100 + ".tflite", "a" * 73 + ".tflite"),
])  # fmt: skip
def test_safe_name(name, safe):
    assert safe_name(name) == safe


def test_storage_full_is_an_error_with_what_to_do(pixel, phones, tmp_path):
    phones.phones[0].fault("storage_full")
    (tmp_path / "full").write_bytes(b"x" * 1000)
    with pytest.raises(AdbError, match="No space left on device; free some space"):
        pixel.push(tmp_path / "full", f"{HERE}/data")


def test_a_push_cut_half_way_leaves_nothing_and_can_be_done_again(pixel, phones, tmp_path):
    (tmp_path / "cut").write_bytes(os.urandom(500_000))
    phones.phones[0].fault("drop_push", after_bytes=100_000)
    with pytest.raises(DeviceLost):
        pixel.push(tmp_path / "cut", f"{HERE}/data")
    pixel.wait(10, poll=0.1)
    assert "cut" not in pixel.shell(f"ls {HERE}/data").output
    assert pixel.pull(pixel.push(tmp_path / "cut", f"{HERE}/data"), 500_000) == (tmp_path / "cut").read_bytes()


def test_a_phone_that_is_gone_is_said_so_after_the_time_given(phones):
    ghost = Phone(Server(phones.address), "127.0.0.1:1")
    with pytest.raises(DeviceLost, match="did not come back within 0.3 s"):
        ghost.wait(0.3, poll=0.1)


def test_two_servers_at_once(phones):
    with AdbServer() as second:
        other = Server(f"127.0.0.1:{second.port}")
        assert other.attached() == ()
        other.connect(phones.phones[0].address)
        assert [line.serial for line in other.attached()] == [phones.phones[0].address]
        assert len(Server(phones.address).attached()) == 2
        assert Phone(other, phones.phones[0].address).shell("getprop ro.product.model").output == "Pixel 7\n"


def test_connect_says_what_failed(phones):
    with pytest.raises(AdbError, match="Can't connect to 127.0.0.1:1: .*wireless debugging"):
        Server(phones.address).connect("127.0.0.1:1")


@pytest.mark.parametrize("address", ["5037", "host", "host:", ":5037", "host:port", "host:-1"])
def test_addresses_that_are_none(address):
    with pytest.raises(AdbError, match="Expected an adb server as HOST:PORT"):
        Server(address)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_adb_that_is_missing_fails_or_is_no_program(tmp_path):
    with pytest.raises(AdbError, match="adb can't be run .*platform-tools.*--adb /path/to/adb"):
        Server(f"127.0.0.1:{free_port()}", adb=str(tmp_path / "none"))
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\necho 'broken adb' >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(AdbError, match="start-server' failed .broken adb.: is it adb"):
        Server(f"127.0.0.1:{free_port()}", adb=str(program))
    program.chmod(stat.S_IRUSR)
    program.write_text("no program")
    with pytest.raises(AdbError, match="adb can't be run"):
        Server(f"127.0.0.1:{free_port()}", adb=str(program))


def test_a_remote_server_that_is_not_there():
    with pytest.raises(AdbError, match="No adb server answers at 127.0.0.2:.* Start one there"):
        Server(f"127.0.0.2:{free_port()}")


@pytest.mark.parametrize("words", [b"HTTP/1.0 400 Bad request\r\n\r\n", b"OKAYzzzz", b"FAILffff", b""])
def test_something_else_behind_the_port_is_an_error_of_ours(words):
    def answer():
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link:
                    link.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(AdbError):
            Server(f"127.0.0.1:{listener.getsockname()[1]}").attached()
        listener.shutdown(socket.SHUT_RDWR)
