"""Where the faces of a frame are, from frame to frame, and whether they can be read."""
