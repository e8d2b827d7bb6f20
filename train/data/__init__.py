"""Labelled images: reading, splitting and checking them."""
