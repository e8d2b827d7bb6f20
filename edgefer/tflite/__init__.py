"""Analyses .tflite files without TensorFlow: operators, what a target would reject, metadata and weights."""
