"""The rows of `android-bench run` as more devices of a study: the (17 + 1) x n table."""

import collections

from android_bench.result import Result

OF_THE_FILE = (
    "recipe", "learning_rate", "seed", "raw_bytes", "gzip_bytes", "xz_bytes", "packed_bytes", "entropy_bytes",
    "sparsity", "levels", "macs",
)  # fmt: skip
FROM_VALIDATION = ("validation", "pruned_sparsity")  # facts of the file, not of the device


def as_devices(variants: list[dict], rows: list[Result], control: str = "C0") -> list[Result]:
    """The rows of the study's own files, with what the study knows of each file, in the study's order.

    What was not measured on the phone stays "not measured": a phone's row never shows this computer's accuracy.
    A phone measured with several numbers of threads or delegates counts as several devices.

    Raises:
        ValueError: none of the rows is of a file of this study, or the rows of a phone lack the control.
    """
    known = {(variant["id"], variant["model_sha256"]): variant for variant in variants}
    mine = [row for row in rows if (row.id, row.model_sha256) in known]
    if not mine:
        raise ValueError(
            f"Expected rows of this study's files ({', '.join(variant['id'] for variant in variants[:3])}, ...). "
            f"Received {len(rows)} rows of other files: run android-bench on the study's models/*.tflite."
        )
    names, merged, seen = _names(mine), [], set()
    for row in mine:
        variant = known[row.id, row.model_sha256]
        if (names[_setting(row)], row.id) in seen:
            raise ValueError(f"Expected one row of {row.id} on {names[_setting(row)]}. Received more: give the results "
                             "of each phone once.")  # fmt: skip
        seen.add((names[_setting(row)], row.id))
        facts = {name: (variant.get("facts") or {}).get(name) for name in FROM_VALIDATION}
        merged.append(row.replace(
            device=names[_setting(row)], facts={k: v for k, v in facts.items() if v is not None} | (row.facts or {}),
            **{name: variant.get(name) for name in OF_THE_FILE},
        ))  # fmt: skip
    controls = {row.device: row for row in merged if row.id == control}
    missing = sorted({row.device for row in merged} - set(controls))
    if missing:
        raise ValueError(f"Expected the control {control} on each phone. It is missing on: {', '.join(missing)}.")
    order = [variant["id"] for variant in variants]
    merged.sort(key=lambda row: (list(controls).index(row.device), order.index(row.id)))
    return [row.replace(delta_accuracy=_delta(row, controls[row.device])) for row in merged]


def _setting(row: Result) -> tuple:
    facts = row.facts or {}
    return (row.device, facts.get("serial"), row.threads, facts.get("delegate_asked"), facts.get("core_mask"))


def _names(rows: list[Result]) -> dict[tuple, str]:
    """A name for each phone and setting: the phone's alone where it has one setting."""
    settings = {_setting(row): row.device_kind for row in rows}
    many = collections.Counter(setting[:2] for setting in settings)
    twins = collections.Counter(device for device, _ in many)  # of other folders: a label is told apart in its own only
    names = {}
    for setting, kind in settings.items():
        device, serial, threads, delegate, mask = setting
        words = [device + (f" …{serial[-4:]}" if serial and twins[device] > 1 else "")
                 + (" (emulated)" if kind == "emulated" else "")]  # fmt: skip
        if many[device, serial] > 1:
            words += [f"{threads} threads" if threads != 1 else "1 thread", *filter(None, (delegate, mask))]
        names[setting] = ", ".join(map(str, words))
    return names


def _delta(row: Result, control: Result) -> float | None:
    if row.accuracy is None or control.accuracy is None:
        return None
    return row.accuracy - control.accuracy
