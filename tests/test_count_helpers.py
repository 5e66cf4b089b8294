"""The counting of private functions with one call site, on a package small enough to count by eye."""

from __future__ import annotations

from pathlib import Path

from count_helpers import PACKAGE, functions

SOURCE = '''
def public():
    """Docstring."""
    return _once() + _twice() + _twice()


def _once():
    return 1


def _twice():
    return 1
'''


def test_one_of_three_is_used_once(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(SOURCE, encoding="utf-8")
    found = {function.name: function for function in functions(tmp_path)}
    assert {name: function.is_single_helper for name, function in found.items()} == {
        "public": False,
        "_once": True,
        "_twice": False,
    }
    assert found["public"].length == 1


def test_no_function_of_the_package_is_past_ninety_lines() -> None:
    assert max(function.length for function in functions(PACKAGE)) <= 90
