"""What can be said of a .tflite file without TensorFlow: its operators, what a target would refuse, its metadata and weights."""
