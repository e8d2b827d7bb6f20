"""The computer: its type, its health, and running edgefer as a service."""
