"""The training host: data sets, networks, recipes, fitting and evaluation (TensorFlow inside functions)."""
