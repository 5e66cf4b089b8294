"""The documentation site: its navigation, and the settings page that is filled from the settings themselves."""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from vlaser_gym.settings.commands import COMMAND_SETTINGS
from vlaser_gym.settings.fields import groups_of

ROOT = Path(__file__).resolve().parent.parent
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    children = entry if isinstance(entry, list) else list(entry.values())
    return [page for child in children for page in pages(child)]


def settings_page() -> str:
    spec = importlib.util.spec_from_file_location("settings_reference", ROOT / "docs" / "settings_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.on_page_markdown((ROOT / "docs" / "settings.md").read_text())


def test_the_navigation_lists_every_page_once() -> None:
    assert sorted(pages(SITE["nav"])) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def texts() -> list[str]:
    """All texts of the package's code, a space for what is put into them."""
    found = []
    for file in (ROOT / "vlaser_gym").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else " " for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_the_messages_of_the_troubleshooting_page_are_the_package_s() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)`", page, re.M)
    assert len(messages) > 20
    said = "\n".join(texts())
    for message in messages:
        # N stands for whatever the sentence names.
        pattern = ".*".join(re.escape(part.strip()) for part in re.split(r"\bN\b", message))
        assert re.search(pattern, said), message


def test_nothing_is_fetched_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert "extra_javascript" not in SITE
    assert "extra_css" not in SITE


def test_the_settings_page_has_every_key_of_every_command() -> None:
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", settings_page(), re.M | re.S))
    for command, cls in COMMAND_SETTINGS.items():
        listed = re.findall(r"^\| `(\w+)` \|", sections[command], re.M)
        assert sorted(listed) == sorted({field.name for field in fields(cls)} - set(groups_of(cls)))
    assert re.search(r"^\| `algo\.clip_range` \| `0\.2` \| above 0 and at most 1 \|", sections["algo=ppo"], re.M)
    assert "&lt;image>" in sections["ask"]


@pytest.mark.slow
def test_the_python_of_the_wrappers_page_runs() -> None:
    """In one namespace, from top to bottom, with the page's own numbers; then its wrapper on the page's environment."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "wrappers.md").read_text(), re.S)
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    assert scope["observation"]["image"].shape == (4, 64, 64, 3)
    wrapped = scope["TimePenalty"](scope["env"].env.env.env)
    wrapped.reset(options={"layout": 0})
    reward = wrapped.step_chunk(np.zeros((4, 3, 7)))[1]
    assert reward.tolist() == pytest.approx([-0.03] * 4)
    scope["env"].close()
