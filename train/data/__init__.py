"""Labelled images: where they come from, how they are divided, and what is wrong with them."""
