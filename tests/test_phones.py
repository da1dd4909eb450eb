"""Which phones there are, each once, and which of them the user means."""

import contextlib
import re
import time

import pytest
from emulated_phone.personalities import PIXEL, XIAOMI
from emulated_phone.server import AdbServer
from phone_farm import farm

from android_bench.adb import Server
from android_bench.phones import Found, NoChoice, Survey, choose, labels, survey


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    with farm(tmp_path_factory.mktemp("phones"), PIXEL, XIAOMI) as found:
        yield found


def found_phones(count):
    """Phones called "Pixel (1)", "Pixel (2)", ... with the serials 1, 2, ..."""

    class Transport:
        def __init__(self, serial):
            self.serial = serial

    return tuple(Found(Transport(f"usb{n}"), None, str(n), f"Pixel ({n})") for n in range(1, count + 1))


@pytest.mark.parametrize("names, wanted", [
    ({"A": "Pixel", "B": "POCO"}, {"A": "Pixel", "B": "POCO"}),
    ({"A1234": "Pixel", "B5678": "Pixel"}, {"A1234": "Pixel (1234)", "B5678": "Pixel (5678)"}),
    ({"A1234": "Pixel", "B1234": "Pixel"}, {"A1234": "Pixel (A1234)", "B1234": "Pixel (B1234)"}),
    ({"A1234": "X", "B1234": "X", "C5678": "X"}, {"A1234": "X (A1234)", "B1234": "X (B1234)", "C5678": "X (5678)"}),
    ({}, {}),
])  # fmt: skip
def test_every_phone_has_a_label_of_its_own(names, wanted):
    assert labels(names) == wanted


def test_both_phones_are_found_with_the_names_a_reader_knows(phones):
    found = survey([Server(phones.address)])
    assert [(item.label, item.serial) for item in found.phones] == [
        ("POCO F5", XIAOMI.serial), ("Pixel 7", PIXEL.serial)]  # fmt: skip
    assert found.problems == ()


def test_a_phone_on_two_transports_or_two_servers_counts_once(phones):
    port = phones.phones[0].address.rpartition(":")[2]
    server = Server(phones.address)
    server.connect(f"localhost:{port}")
    with AdbServer() as second, contextlib.closing(server.client.make_connection()):
        second.connect(phones.phones[0].address)
        other = Server(f"127.0.0.1:{second.port}")
        assert (len(server.attached()), len(other.attached())) == (3, 1)
        found = survey([server, other])
        assert [item.serial for item in found.phones] == [XIAOMI.serial, PIXEL.serial]
        chosen = choose(found, [PIXEL.serial, "Pixel 7"])  # twice the same one
        assert [item.serial for item in chosen] == [PIXEL.serial]
    server.client.disconnect(f"localhost:{port}")


def test_two_phones_of_a_kind_are_told_apart(tmp_path):
    with farm(tmp_path, PIXEL, serial="FIRST0001") as first, farm(tmp_path / "b", PIXEL, serial="OTHER0002") as second:
        found = survey([Server(first.address), Server(second.address)])
        assert [(item.serial, item.label) for item in found.phones] == [
            ("FIRST0001", "Pixel 7 (0001)"), ("OTHER0002", "Pixel 7 (0002)")]  # fmt: skip
        assert [item.phone.shell("getprop ro.serialno").output.strip() for item in found.phones] == [
            "FIRST0001", "OTHER0002"]  # fmt: skip


@pytest.mark.parametrize("fault, words", [
    ("unauthorized", "unlock the phone and tap 'Allow USB debugging'"),
    ("noise", "answered a command with more than 8000000 bytes"),
    ("no_android", "does not answer: Expected the text that facts.sh prints"),
])  # fmt: skip
def test_a_phone_that_can_not_be_used_is_a_problem_in_words_and_the_other_is_found(tmp_path, fault, words):
    with farm(tmp_path, PIXEL, XIAOMI) as two:
        if fault == "no_android":
            (two.phones[0].root / "bin/getprop").write_text("#!/bin/sh\necho no such thing\n")
        elif fault == "noise":
            two.phones[0].fault("noise", megabytes=50, match="getprop")
        else:
            two.phones[0].fault("unauthorized", times=50)
            server = Server(two.address)
            server.client.disconnect(two.phones[0].address)
            two.server.connect(two.phones[0].address)
            end = time.monotonic() + 10
            while "unauthorized" not in [one.state for one in server.attached()] and time.monotonic() < end:
                time.sleep(0.05)                         # offline at first: the phone has not been asked yet
        found = survey([Server(two.address)])
        assert [item.label for item in found.phones] == ["POCO F5"]
        assert len(found.problems) == 1 and words in found.problems[0]
        assert found.problems[0].startswith(two.phones[0].address)
        assert [item.label for item in choose(found, [])] == ["POCO F5"]
        with pytest.raises(NoChoice, match=re.escape(two.phones[0].address)):
            choose(found, ["Pixel 7"])  # and the message says what is wrong with the phone that is meant


def test_the_only_phone_needs_no_choice():
    assert choose(Survey(found_phones(1), ()), [])[0].serial == "1"


@pytest.mark.parametrize("wanted, serials", [
    (["all"], ["1", "2", "3"]), (["2"], ["2"]), (["usb3"], ["3"]), (["Pixel (1)", "2"], ["1", "2"]),
    (["2", "2"], ["2"]),
])  # fmt: skip
def test_a_choice_by_serial_transport_or_name(wanted, serials):
    assert [item.serial for item in choose(Survey(found_phones(3), ()), wanted)] == serials


@pytest.mark.parametrize("count, problems, wanted, words", [
    (0, (), [], "No phone is attached: plug one in .* --connect HOST:PORT; --device host"),
    (0, (), ["all"], "No phone is attached"),
    (0, ("X is offline: replug the cable.",), [], "^X is offline: replug the cable.$"),
    (2, (), [], r"2 phones are attached; choose with --device .* usb1 \(Pixel \(1\)\), usb2"),
    (2, (), ["usb9"], "Received: 'usb9'. Attached: usb1"),
    (1, (), ["usb9"], "Received: 'usb9'"),
    (1, (), [""], "Received: ''"),
])  # fmt: skip
def test_no_choice_is_one_sentence_on_what_to_do(count, problems, wanted, words):
    with pytest.raises(NoChoice, match=words) as caught:
        choose(Survey(found_phones(count), problems), wanted)
    assert "\n" not in str(caught.value)
