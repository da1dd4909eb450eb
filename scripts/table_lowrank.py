"""Low rank on real data: every decomposition at a half and a quarter of the MACs, float32 and int8, from the files.

    [TFCOMPRESS_DATA=...] python scripts/table_lowrank.py [--nets image_vgg,ecg_cnn] [--seeds 0] [--shares 0.5,0.25]
        [--kinds all|best|svd,cp]

A control is trained once for each net and seed. `factorize` then meets the budget of MACs with one kind of
decomposition (`auto`: the programme picks one for each layer among svd, tucker and separable), with 512 training
samples; the factorised net learns from the control; its float32 and its int8 file are judged on the whole test set, and
timed in turn with the control's on one thread of this computer. Kinds are compared by the validation set: `--kinds
best` takes the one that did best on seed 0 at each share, then trains its float net quantization-aware (`cp aware`).
Rows: table_lowrank.jsonl, tables: table_lowrank.md in scripts/results, models: runs/table_lowrank. Stopped or killed,
the same command goes on.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import keras
from controls import control_of
from table_lowrank_rows import best_kind, line, write_tables

import tfcompress as tc
from android_bench import side_by_side
from android_bench.store import Store
from tfcompress import datasets, measure, training
from tfcompress.recipes import RECIPES

RESULTS, RUNS = Path(__file__).parent / "results", Path("runs/table_lowrank")
CLOTHES = RECIPES["fashion_mnist"]
# Batch norm is folded: a smaller step, and a warm-up, than nets with it stand.
NETS = {
    "image_vgg": dict(data="fashion_mnist", options={}, control=CLOTHES, taught=(4.0, 0.9),
                      tune=replace(CLOTHES, epochs=4, learning_rate=1e-3, warmup=0.05)),
    "ecg_cnn": dict(data="ecg", options={}, control=RECIPES["ecg_cnn"], taught=(1.0, 1.0),
                    tune=replace(RECIPES["ecg_cnn_tune"], learning_rate=1e-3, warmup=0.05)),
    "ecg_resnet": dict(data="ecg", options={}, control=RECIPES["ecg_resnet"], taught=(1.0, 1.0),
                       tune=replace(RECIPES["ecg_resnet_tune"], learning_rate=5e-4, warmup=0.05)),
}  # fmt: skip
KINDS = ("auto", "svd", "tucker", "separable", "cp")
AWARE = " aware"


def factorized(net: str, kind: str, share: float, control, splits):
    """The factorised control, not yet trained."""
    data = splits.x_train[:: len(splits.x_train) // 512][:512]
    return tc.factorize(control, share, data=data, kinds=kind, round_to=8 if kind == "auto" else 1)


def judged(content: bytes, splits) -> dict:
    """What a file does on test and validation data, and its bytes."""
    test = measure.evaluate(content, splits.x_test, splits.y_test)
    validation = measure.evaluate(content, splits.x_val, splits.y_val).accuracy
    raw, gzip = measure.sizes(content)
    return dict(accuracy=test.accuracy, macro_f1=test.macro_f1, validation=validation, bytes=raw, gzip=gzip,
                macs=tc.inspect(content).macs)  # fmt: skip


def timed(files: dict[str, bytes], folder: Path) -> dict[str, float]:
    """Microseconds of one run of each file, in turns."""
    paths = [folder / f"timed_{name}.tflite" for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        path.write_bytes(content)
    found = side_by_side.latencies(paths, turns=25)
    for path in paths:
        path.unlink()
    return dict(zip(files, found, strict=True))


def calibration(splits):
    return splits.x_train[:: len(splits.x_train) // 500][:500]


def made(net: str, seed: int, kind: str, share: float, splits) -> dict:
    """One row but its key: factorised, judged as it is, trained, judged as float32 and int8."""
    job, folder = NETS[net], RUNS / f"{net}-{seed}"
    control = control_of(net, job["options"], job["control"], seed, splits, folder)
    started = time.perf_counter()
    if kind.endswith(AWARE):
        trained = folder / f"{kind.removesuffix(AWARE)}-{share}.keras"
        row, files = {}, {"int8": aware(control, job, trained, seed, splits)}
    else:
        found = factorized(net, kind, share, control, splits)
        kinds = [layer.kind for layer in found.layers if layer.kind]
        row = dict(factorize_seconds=time.perf_counter() - started,
                   factors={name: kinds.count(name) for name in sorted(set(kinds))},
                   untrained=measure.evaluate(tc.convert(found.model).content, splits.x_test, splits.y_test).accuracy)
        training.fit(tc.Distiller(found.model, control, *job["taught"]), splits, job["tune"], seed=seed)
        found.model.save(folder / f"{kind}-{share}.keras")
        files = {"float32": tc.convert(found.model).content,
                 "int8": tc.convert(found.model, "int8", calibration(splits)).content}  # fmt: skip
    row["seconds"] = time.perf_counter() - started
    files |= {"control": (folder / "control.tflite").read_bytes(),
              "control int8": tc.convert(control, "int8", calibration(splits)).content}  # fmt: skip
    times = timed(files, folder)
    return row | {name: judged(content, splits) | {"us": times[name]} for name, content in files.items()}


def aware(control, job: dict, trained: Path, seed: int, splits) -> bytes:
    """The int8 file of a factorised and trained net after quantization-aware training, half as long, by the control."""
    model = tc.quantize_aware(keras.models.load_model(trained, compile=False))
    tc.calibrate(model, calibration(splits))
    tune = replace(job["tune"], epochs=(job["tune"].epochs + 1) // 2, learning_rate=job["tune"].learning_rate / 2)
    training.fit(tc.Distiller(model, control, *job["taught"]), splits, tune, seed=seed)
    return tc.convert(model, "int8").content


def main(options) -> None:
    store = Store(RESULTS / "table_lowrank.jsonl", key=("net", "seed", "kind", "share"))
    for seed, net in ((int(seed), net) for seed in options.seeds.split(",") for net in options.nets.split(",")):
        splits = datasets.load(NETS[net]["data"])
        for share in map(float, options.shares.split(",")):
            kinds = options.kinds.split(",")
            if options.kinds == "all":
                kinds = [kind for kind in KINDS if kind != "separable" or net.startswith("image")]
            elif options.kinds == "best":
                best = best_kind(store.read(), net, share)
                kinds = [best, best + AWARE]
            for kind in kinds:
                row = dict(net=net, seed=seed, kind=kind, share=share)
                if store.key_of(row) in store:
                    continue
                keras.backend.clear_session()
                store.append(row | made(net, seed, kind, share, splits))
                write_tables(store.read())
                print(net, seed, line(store.read()[-1:], "int8"), flush=True)
    write_tables(store.read(), readme=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="image_vgg,ecg_cnn")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--shares", default="0.5,0.25", help="of the control's MACs")
    parser.add_argument("--kinds", default="all", help=f"all, best, or some of {', '.join(KINDS)}")
    training.pin_threads(1)
    main(parser.parse_args())
