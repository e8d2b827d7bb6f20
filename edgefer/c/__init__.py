"""A network as portable C99: its words and arena, the C itself, and the proof on this host that it answers as it should."""
