"""One TensorFlow, few threads, the same numbers every run."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")

import keras
import pytest


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    keras.utils.set_random_seed(7)
