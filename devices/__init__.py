"""What runs on the board: cameras, faces, the loop and its sinks. Nothing here imports TensorFlow."""
