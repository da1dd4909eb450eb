"""Fetching the heartbeats: wfdb's own client against a small PhysioNet on this computer."""

import functools
import http.server
import threading

import numpy as np
import pytest

from tfcompress.datasets import load


class Physionet(http.server.SimpleHTTPRequestHandler):
    """PhysioNet's layout: `content/mitdb/` names the version that is there, `files/mitdb/1.0.0/` holds the records."""

    def log_message(self, *args):
        pass


@pytest.fixture
def physionet(tmp_path, monkeypatch):
    """A server on this computer with three short records of its own, where `wfdb` looks for PhysioNet."""
    wfdb = pytest.importorskip("wfdb")
    from wfdb.io import download

    files = tmp_path / "site" / "files" / "mitdb" / "1.0.0"
    page = tmp_path / "site" / "content" / "mitdb"
    for folder in (files, page / "1.0.0"):
        folder.mkdir(parents=True)
    (page / "index.html").write_text("<p>\nVersion: 1.0.0</p>\n")
    records = {"101": "NNSN", "114": "NVNN", "100": "NNNF"}  # DS1, its validation patient, DS2
    for seed, (name, symbols) in enumerate(records.items()):
        signal = np.random.default_rng(seed).normal(size=(3600, 2))
        wfdb.wrsamp(name, 360, ["mV", "mV"], ["MLII", "V5"], signal, fmt=["212", "212"], write_dir=str(files))
        wfdb.wrann(name, "atr", np.arange(1, 5) * 700, list(symbols), write_dir=str(files))
    (files / "RECORDS").write_text("\n".join(records) + "\n")
    (files / "ANNOTATORS").write_text("atr\treference beat annotations\n")
    handler = functools.partial(Physionet, directory=tmp_path / "site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        root = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(download, "PN_CONTENT_URL", root + "content/")
        monkeypatch.setattr(download.config, "db_index_url", root + "files/")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1")
        yield files
        server.shutdown()


def test_heartbeats_are_fetched_from_physionet_and_found_the_next_time(physionet, tmp_path, monkeypatch):
    monkeypatch.delenv("TFCOMPRESS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    options = {"channels": "beat", "validation": (114,)}
    fetched = load("ecg", download=True, **options)
    assert fetched.y_train.tolist() == [0, 0, 1, 0]
    assert fetched.y_val.tolist() == [0, 2, 0, 0]
    assert fetched.y_test.tolist() == [0, 0, 0, 3]
    direct = load("ecg", path=physionet, **options)
    np.testing.assert_array_equal(fetched.x_test, direct.x_test)
    (physionet / "RECORDS").unlink()  # the next time asks nobody
    np.testing.assert_array_equal(load("ecg", download=True, **options).x_test, fetched.x_test)
