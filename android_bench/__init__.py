"""Measure `.tflite` files on devices: this computer first, Android phones next. Imports nothing from tfcompress."""
