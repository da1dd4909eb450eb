"""python scripts/convert.py MODEL --precision int8 --calibration x.npz -o model.tflite, as `tfcompress convert`."""

import sys

from tfcompress.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
