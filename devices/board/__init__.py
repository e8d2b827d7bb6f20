"""The computer itself: what it is, whether it is well, and running as its service."""
