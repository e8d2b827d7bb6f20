"""A network as portable C99: its words and arena, the project around it, and the proof that it answers as the host does."""
