"""The commands of `edgefer`, one function each; they import what they need inside their bodies."""
