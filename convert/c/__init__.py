"""The C project around a network: its files, and the self-tests of its targets."""
