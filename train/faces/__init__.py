"""Training of the networks that detect faces: a finder for whole frames, and a refiner for each of its candidates."""
