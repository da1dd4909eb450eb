"""Keras on another backend: one clear error."""

import os
import subprocess
import sys


def test_another_backend_is_refused():
    code = "import keras; keras.backend.backend = lambda: 'jax'\nimport tfcompress; tfcompress.compress"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert found.returncode == 1
    assert "needs the TensorFlow backend of Keras 3. Received: KERAS_BACKEND='jax'" in found.stderr.splitlines()[-1]
