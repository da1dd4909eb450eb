"""Phones for tests: a device-side adbd that the real adb client talks to, and all that a harness asks behind it."""
