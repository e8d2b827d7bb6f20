"""Training of the networks that find faces: a finder for whole frames and a refiner for each candidate."""
