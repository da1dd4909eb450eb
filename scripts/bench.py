"""python scripts/bench.py models/*.tflite --eval test.npz --device all -o results, as `android-bench run`."""

import sys

from android_bench.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
