"""From a trained bundle to TFLite: calibration, pruning and int8 quantization (TensorFlow inside functions)."""
