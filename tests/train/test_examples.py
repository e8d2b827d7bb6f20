"""The examples in the docstrings of the training host."""

import doctest
import importlib
import pkgutil

import pytest

import edgefer.train

MODULES = [one.name for one in pkgutil.walk_packages(edgefer.train.__path__, "edgefer.train.")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_give_their_stated_results(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_docstrings_have_examples():
    modules = [importlib.import_module(name) for name in MODULES]
    assert len(modules) > 50
    assert sum(len(test.examples) for module in modules for test in doctest.DocTestFinder().find(module)) > 10
