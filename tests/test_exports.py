"""Each model has its two lines in ``densekit/__init__.py``. Select one model with ``-k MyFlow``."""

import ast
from pathlib import Path

import pytest

import densekit
from densekit.discovery import all_estimators


def imported_for_type_checkers():
    """Names and modules of the imports below ``if TYPE_CHECKING``, which nothing executes."""
    tree = ast.parse(Path(densekit.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.asname: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("name", all_estimators())
def test_model_is_exported(name):
    module = all_estimators()[name].__module__
    assert densekit._EXPORTS.get(name) == module, (
        f'add "{name}": "{module}" to _EXPORTS in densekit/__init__.py'
    )
    assert imported_for_type_checkers().get(name) == module, (
        f"add 'from {module} import {name} as {name}' to densekit/__init__.py"
    )
