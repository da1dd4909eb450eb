"""How many int8 logits of the .tflite equal the quantized logits of the model that was trained? Ours beside TFMOT.

    python scripts/bench_qat.py            # 2 and 6 blocks, both tools, three kernel sets; resumes, prints the table

Nets: stem, then blocks of (depthwise 3x3, BN, ReLU, 1x1, BN, add, ReLU), trained on MNIST-5k; the same trained float
weights go into both tools, the same data, epochs and learning rate follow. Rows: scripts/results/qat_exactness.jsonl.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "scripts" / "results" / "qat_exactness.jsonl"
CASES = [(blocks, seed) for blocks in (2, 6) for seed in (0, 1, 2)]
KERNELS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
WIDTH, BATCH, FLOAT_EPOCHS, QAT_EPOCHS, RATE = 32, 64, 15, 4, 2e-3


def net(keras, blocks):
    """Logits of 10 digits; the same code for keras and tf_keras."""
    layers = keras.layers
    inputs = keras.Input((28, 28, 1))
    x = layers.Conv2D(WIDTH, 3, 2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for _ in range(blocks):
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(y))
        y = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(WIDTH, 1, use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def train(keras, model, splits, epochs, rate, seed):
    keras.utils.set_random_seed(seed)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    model.fit(splits.x_train, splits.y_train, BATCH, epochs, verbose=0)


def tflite(tf, model):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def run(content, x, kernels):
    """``(logits, step of their int8 codes)`` of a file with float output."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
    interpreter = Interpreter(model_content=content, num_threads=1,
                              experimental_op_resolver_type=getattr(OpResolverType, KERNELS[kernels]))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    codes = interpreter._get_ops_details()[-1]["inputs"][0] if kernels == "builtin" else None
    steps = {d["index"]: d["quantization"][0] for d in interpreter.get_tensor_details()}
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), steps.get(codes)


def measure(case, tool, model, content, x, y):
    """The row of one tool on one net."""
    import numpy as np
    step = run(content, x[:1], "builtin")[1]
    logits = model.predict(x, BATCH, verbose=0)
    row = {"blocks": case[0], "seed": case[1], "tool": tool, "logits": int(logits.size), "bytes": len(content),
           "accuracy_qat": float((logits.argmax(1) == y).mean())}
    for kernels in KERNELS:
        out = run(content, x, kernels)[0]
        gap = np.abs(np.round((out - logits) / step))
        row[kernels] = {"equal": float((gap == 0).mean()), "max_lsb": int(gap.max()),
                        "accuracy": float((out.argmax(1) == y).mean())}
    return row


def case_ours(case, splits, weights):
    import keras
    import numpy as np
    import tensorflow as tf

    from tfcompress.quantization.aware import bake_aware, quantize_aware
    model = net(keras, case[0])
    if not weights.exists():
        train(keras, model, splits, FLOAT_EPOCHS, RATE, case[1])
        np.savez(weights, *model.get_weights())
    stored = np.load(weights)
    model.set_weights([stored[name] for name in stored.files])
    aware = quantize_aware(model)
    train(keras, aware, splits, QAT_EPOCHS, RATE / 10, case[1])
    row = measure(case, "tfcompress", aware, tflite(tf, bake_aware(aware)), splits.x_test, splits.y_test)
    return {**row, "accuracy_float": accuracy(model, splits)}


def case_tfmot(case, splits, weights):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import numpy as np
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
    model = net(keras, case[0])
    stored = np.load(weights)
    model.set_weights([stored[name] for name in stored.files])
    aware = tfmot.quantization.keras.quantize_model(model)
    train(keras, aware, splits, QAT_EPOCHS, RATE / 10, case[1])
    row = measure(case, "tfmot", aware, tflite(tf, aware), splits.x_test, splits.y_test)
    return {**row, "accuracy_float": accuracy(model, splits)}


def accuracy(model, splits):
    return float((model.predict(splits.x_test, BATCH, verbose=0).argmax(1) == splits.y_test).mean())


def child(tool, blocks, seed, weights):
    """Compute one row and print it as the last line."""
    sys.path.insert(0, str(ROOT))
    from tfcompress.datasets.digits import load
    compute = {"tfcompress": case_ours, "tfmot": case_tfmot}[tool]
    print(json.dumps(compute((int(blocks), int(seed)), load(), Path(weights))))


def table(rows):
    print(f"\n{'blocks':>6} {'seed':>4} {'tool':11} " + "".join(f"{k + ' equal':>16} {'LSB':>3}" for k in KERNELS)
          + f" {'float':>7} {'QAT':>7} {'file':>7}")
    for row in sorted(rows, key=lambda r: (r["blocks"], r["tool"], r["seed"])):
        print(f"{row['blocks']:6} {row['seed']:4} {row['tool']:11} "
              + "".join(f"{100 * row[k]['equal']:14.2f} % {row[k]['max_lsb']:3}" for k in KERNELS)
              + f" {row['accuracy_float']:7.3f} {row['accuracy_qat']:7.3f} {row['xnnpack']['accuracy']:7.3f}")


def main():
    ROWS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    done = {(r["tool"], r["blocks"], r["seed"]) for r in rows}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    with tempfile.TemporaryDirectory() as folder:
        for blocks, seed in CASES:
            todo = [tool for tool in ("tfcompress", "tfmot") if (tool, blocks, seed) not in done]
            for tool in ["tfcompress", "tfmot"] if todo == ["tfmot"] else todo:   # ours trains the float weights
                weights = str(Path(folder) / f"{blocks}_{seed}.npz")
                result = subprocess.run([sys.executable, __file__, tool, str(blocks), str(seed), weights],
                                        env=environment, capture_output=True, text=True)
                if result.returncode:
                    raise SystemExit(f"{tool}, {blocks} blocks, seed {seed} failed:\n{result.stderr[-3000:]}")
                row = json.loads(result.stdout.splitlines()[-1])
                if tool in todo:
                    rows.append(row)
                    with ROWS.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(tool, blocks, "blocks, seed", seed, "done", flush=True)
    table(rows)


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
