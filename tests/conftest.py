"""One TensorFlow, few threads, the same numbers every run."""

import collections
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")

import signal

import keras
import pytest
from small_models import normal, softmax_net

from tfcompress.convert import PRECISIONS, convert_all

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one
collect_ignore = ["emulated_phone/benchmark_model"]  # programs, no modules


def pytest_collection_modifyitems(items):
    """Files with the most slow tests first: what is long must not be what the other cores wait for in the end."""
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _same_numbers_every_run():
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def model():
    keras.utils.set_random_seed(7)
    return softmax_net()


@pytest.fixture(scope="session")
def files(model):
    """``model`` in every precision."""
    return convert_all(model, PRECISIONS, normal(12, 12, 3))
