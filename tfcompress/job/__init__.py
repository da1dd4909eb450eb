"""Jobs: from five lines of YAML to a checked ``.tflite``, by stages that have to pay."""
