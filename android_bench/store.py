"""Rows that survive a kill: one JSON object a line, on the disk before `append` returns.

A process that is killed while it writes leaves at most a torn last line: `read` drops it, `append` cuts it off first.
"""

import contextlib
import fcntl
import json
import os
from pathlib import Path


class Store:
    """An append-only file of rows, each known by the values of its `key` fields.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()) / "rows.jsonl", key=("id", "device"))
    >>> store.append({"id": "C0", "device": "host-1thread", "accuracy": 0.9})
    >>> ("C0", "host-1thread") in store, ("P70", "host-1thread") in store
    (True, False)
    >>> store.read()
    [{'id': 'C0', 'device': 'host-1thread', 'accuracy': 0.9}]
    """

    def __init__(self, path, key: tuple[str, ...] = ("id",)):
        self.path, self.key = Path(path), key

    def read(self) -> list[dict]:
        """All whole rows, oldest first. ValueError where a line that is not the last is no JSON object."""
        rows = []
        for number, line in enumerate(_whole_lines(self.path), 1):
            try:
                row = json.loads(line)
                row_key = self.key_of(row)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}: expected a JSON object with {', '.join(self.key)}, received "
                    f"{line[:60]!r}. Remove that line (its row is then made again)."
                ) from error
            rows.append((row_key, row))
        return list(dict(reversed(rows)).values())[::-1]  # the first of a key wins

    def append(self, row: dict) -> None:
        """Add one row and wait until the disk has it. ValueError if a row with this key is there already."""
        if self.key_of(row) in self:
            raise ValueError(f"{self.path} already holds the row {self.key_of(row)}: each is written once.")
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # until it is closed: else one process cuts off what another one writes
            self._cut_torn_line()
            while line:  # a short write leaves a torn line, which the next append would cut
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def rewrite(self, rows: list[dict]) -> None:
        """Put `rows` in the place of all that are there, at once or not at all. What is appended meanwhile is lost."""
        write_file(self.path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())

    def __contains__(self, key) -> bool:
        return tuple(key) in {self.key_of(row) for row in self.read()}

    def key_of(self, row: dict) -> tuple:
        """The values of the row's key fields."""
        return tuple(row[name] for name in self.key)

    def _cut_torn_line(self) -> None:
        if self.path.exists():
            whole = sum(len(line) + 1 for line in _whole_lines(self.path))
            if whole < self.path.stat().st_size:
                os.truncate(self.path, whole)


def _whole_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or empty


def write_file(path, content: bytes) -> None:
    """Write `content` to `path` at once or not at all (temporary file, fsync, rename)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def remember_config(folder, config: dict) -> None:
    """Write `config.json` for a new study; for an old one ValueError unless it was made with the same config."""
    path = Path(folder) / "config.json"
    wanted = json.loads(json.dumps(config))
    if not path.exists():
        write_file(path, json.dumps(wanted, indent=2).encode())
        return
    found = json.loads(path.read_text())
    changed = _changes(found, wanted)
    if changed:
        raise ValueError(
            f"{path.parent} holds results of another configuration ({'; '.join(changed)}). "
            "Rows of two configurations must not mix: choose another folder, or delete this one."
        )


def _changes(found: dict, wanted: dict) -> list[str]:
    """What differs, a few words each, the first four."""
    old, new = dict(_leaves(found)), dict(_leaves(wanted))
    told = [f"{name}: {_near(old.get(name, 'nothing'), new.get(name, 'nothing'))} -> "
            f"{_near(new.get(name, 'nothing'), old.get(name, 'nothing'))}"
            for name in old | new if name not in old or name not in new or old[name] != new[name]]
    return told if len(told) <= 4 else [*told[:4], f"{len(told) - 4} more"]


def _leaves(value, name=""):
    """``(dotted name, value)`` of all that is no mapping and no list."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _leaves(part, f"{name}.{key}" if name else str(key))
    if not parts or not value:
        yield name, value


def _near(value, other, most=60):
    """A value in words, of long ones what lies around the first difference."""
    words = repr(value)
    if len(words) <= most:
        return words
    start = max(0, len(os.path.commonprefix([words, repr(other)])) - most // 3)
    return f"{'...' * (start > 0)}{words[start : start + most]}{'...' * (start + most < len(words))}"


@contextlib.contextmanager
def only_one(folder):
    """Hold the folder for this process; RuntimeError if another study writes to it. A kill frees it."""
    folder = Path(folder)
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file. Expected a folder, which need not exist yet.")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"Another process writes into {folder}: wait for it, or stop it.") from error
        yield
