"""Fill the page ``settings.md`` with the keys of all commands, from the dataclasses that the commands read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlaser_gym.cli import shown
from vlaser_gym.settings.commands import COMMAND_SETTINGS
from vlaser_gym.settings.fields import Option, first_paragraph, groups_of, options_of
from vlaser_gym.settings.groups import config_defaults, described, group_defaults, groups

MARKER = "<!-- settings -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' hook: the page's text with the tables in place of the marker."""
    return markdown.replace(MARKER, "\n".join(_lines())) if MARKER in markdown else markdown


def _lines() -> Iterator[str]:
    for command, cls in COMMAND_SETTINGS.items():
        yield f"\n## {command}\n\n{first_paragraph(cls)}\n"
        yield from _table("", options_of(cls), config_defaults(cls))
        for group, default in groups_of(cls).items():
            yield f"\n`{group}={default}` chooses a group, whose keys are set as `{group}.KEY=VALUE`.\n"
    for group, names in groups().items():
        for name in names:
            sentence, options = described(group, name)
            yield f"\n## {group}={name}\n\n{sentence}\n"
            yield from _table(f"{group}.", options, group_defaults(group, name))


def _table(prefix: str, options: Mapping[str, Option], defaults: Mapping[str, Any]) -> Iterator[str]:
    yield "| key | default | range | meaning |\n| --- | --- | --- | --- |"
    for key, option in options.items():
        cells = (f"`{prefix}{key}`", f"`{shown(defaults[key])}`", option.range, option.sentence)
        yield "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(cell: str) -> str:
    """Keep ``<image>`` text and a bar within its cell; code spans are literal already."""
    return cell.replace("|", "\\|") if cell.startswith("`") else cell.replace("|", "\\|").replace("<", "&lt;")
