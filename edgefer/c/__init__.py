"""A network as portable C99: its words and arena, the C code, and its proof on this host."""
