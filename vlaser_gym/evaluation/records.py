"""Validation of the entries in a run directory: types and consistency.

Every reader of the package gets its records, settings, summaries and timings through
:mod:`vlaser_gym.evaluation.store`, which checks them here. The checks raise :class:`ValueError` with a phrase; the
caller knows file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from reprlib import repr as shortened
from sys import float_info
from typing import Any
from zlib import crc32

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import GymError
from vlaser_gym.storage.lines import line_of

Record = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """The allowed types of a value.

    Attributes:
        words: for people.
        holds: whether a value is of this kind.
    """

    words: str
    holds: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    """JSON can escape halves of characters, which no file and no terminal takes."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _is_whole(value: Any, least: int) -> bool:
    """Up to the largest that a float holds exactly: means are taken of these numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 2**53


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _optional(kind: Kind) -> Kind:
    return Kind(f"{kind.words} or null", lambda value: value is None or kind.holds(value))


def _names(kind: Kind) -> Kind:
    def holds(value: Any) -> bool:
        """True for a mapping from text to values of the kind."""
        return isinstance(value, dict) and all(_is_text(name) and kind.holds(v) for name, v in value.items())

    return Kind(f"names with {kind.words}", holds)


TEXT = Kind("text", _is_text)
NAME = Kind("a name", lambda value: _is_text(value) and bool(value))
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number from 0 on", lambda value: _is_whole(value, 0))
NUMBER = Kind("a finite number", _is_number)
POSITIVE = Kind("a whole number from 1 on", lambda value: _is_whole(value, 1))
SECONDS = Kind("a number from 0 on", lambda value: _is_number(value) and value >= 0)
FLAGS = _names(TRUTH)
SETTINGS = Kind("settings below it", lambda value: isinstance(value, dict))

#: Fields that name an episode.
WHERE = {"task": NAME, "variant": NAME, "layout": NAME, "trial": COUNT}
#: Fields of a record, which all have been there from the first version on.
RECORD = {
    **WHERE,
    "instruction": TEXT,
    "agent": TEXT,
    "engine": TEXT,
    "engine_version": TEXT,
    "look": TEXT,
    "success": TRUTH,
    "success_any": TRUTH,
    "first_success_step": _optional(POSITIVE),
    "steps": COUNT,
    "reward": NUMBER,
    "ending": Kind("one of truncated, terminated, error", lambda value: value in ("truncated", "terminated", "error")),
    "flags": FLAGS,
    "flags_any": FLAGS,
    "error": _optional(TEXT),
    "states": _optional(TEXT),
}
#: Fields of a record that may be absent.
RECORD_MORE = {"perturb": NAME, "training": _optional(TEXT), "crc32": TEXT}
#: Settings of a run that readers use. A run stores more of them, or fewer.
CONFIG = {
    "vlaser_gym": TEXT,
    "task": Kind(
        "names of tasks",
        lambda value: value is None or _is_text(value) or (isinstance(value, list) and all(map(NAME.holds, value))),
    ),
    "variant": TEXT,
    "layouts": TEXT,
    "episodes": POSITIVE,
    "trials": POSITIVE,
    "terminate_on_success": TRUTH,
    "look": _optional(TEXT),
    "protocol": _optional(TEXT),
    "until": _optional(TEXT),
    "engine": Kind(
        "a name, or settings with a name",
        lambda value: _is_text(value.get("name", "") if isinstance(value, dict) else value),
    ),
    "engine_version": TEXT,
    "agent": SETTINGS,
    "agent_settings": SETTINGS,
}
#: A rate of a summary, and a task's row there.
RATE = {"count": COUNT, "rate": NUMBER, "low": NUMBER, "high": NUMBER}
ROW = {"task": NAME, "n": POSITIVE, "errors": COUNT, "success": SETTINGS, "success_any": SETTINGS}
SUMMARY = {"tasks": Kind("a list", lambda value: isinstance(value, list))}
#: What is noted about the time that an episode took.
EPISODE_TIMING = {"task": NAME, "seconds": SECONDS, "lanes": POSITIVE}


def check_fields(entry: Mapping[str, Any], needed: Mapping[str, Kind], more: Mapping[str, Kind] | None = None) -> None:
    """Check that the fields of an entry are present and of their types; unknown fields are ignored.

    Args:
        entry: names with values.
        needed: the kinds of what must be there.
        more: the kinds of what may be there.

    Raises:
        ValueError: with a phrase about the first field that is absent or of another kind.
    """
    for name, kind in needed.items():
        if name not in entry:
            raise ValueError(f"expected {name} ({kind.words}); it is absent")
    for name, kind in {**needed, **(more or {})}.items():
        if name in entry and not kind.holds(entry[name]):
            raise ValueError(f"expected {kind.words} as {name}; got {shortened(entry[name])}")


def check_where(entry: Mapping[str, Any]) -> None:
    """Check that an entry names an episode.

    Raises:
        ValueError: with a phrase, if not.
    """
    check_fields(entry, WHERE)
    try:
        layout = address_of(entry).layout
    except (GymError, ValueError) as error:
        raise ValueError(f"expected KIND:K as layout, such as grid:0; got {shortened(entry['layout'])}") from error
    if layout != entry["layout"]:
        raise ValueError(f"expected {layout} as layout; got {shortened(entry['layout'])}")


def check_record(entry: Mapping[str, Any]) -> None:
    """Check that an entry is a valid record of an episode and matches its checksum.

    Raises:
        ValueError: with a phrase about the first thing that is not as it must be.
    """
    check_fields(entry, RECORD, RECORD_MORE)
    check_where(entry)
    first = entry["first_success_step"]
    contradictions = (
        (entry["success"] and not entry["success_any"], "success at the last step, but at no step"),
        ((first is None) == entry["success_any"], "success_any and first_success_step"),
        (first is not None and first > entry["steps"], f"the first success at step {first} of {entry['steps']}"),
        (entry["flags"].get("success", entry["success"]) != entry["success"], "success and flags"),
        (entry["flags_any"].get("success", entry["success_any"]) != entry["success_any"], "success_any and flags_any"),
        (entry["error"] is None and entry["ending"] == "error", "error and ending"),
        (entry["error"] is not None and entry["success_any"], "a success of an episode that did not end"),
    )
    for wrong, phrase in contradictions:
        if wrong:
            raise ValueError(f"its fields contradict each other: {phrase}")
    for name in ("states", "training"):
        if entry.get(name) not in (None, states_name(address_of(entry), name)):
            raise ValueError(f"expected {states_name(address_of(entry), name)} as {name}; got {shortened(entry[name])}")
    if "crc32" in entry and entry["crc32"] != _checksum(entry):
        raise ValueError(
            "it was changed after it was written: its crc32 is another (take that field out of the line if the change "
            "was meant)"
        )


def address_of(entry: Mapping[str, Any]) -> Address:
    """The address of the episode that a record describes."""
    return Address(entry["task"], entry["variant"], entry["layout"], entry["trial"])


def states_name(address: Address, folder: str = "states") -> str:
    """Path of an episode's states (or of another folder's arrays) inside its run directory."""
    kind, index = address.layout_kind, address.layout_index
    return f"{folder}/{address.task}.{address.variant}.{kind}-{index:04d}.trial-{address.trial}.npz"


def sealed(record: Mapping[str, Any]) -> Record:
    """A record with the checksum that tells whether it is read as it was written."""
    return {**record, "crc32": _checksum(record)}


def _checksum(entry: Mapping[str, Any]) -> str:
    return f"{crc32(line_of({name: value for name, value in entry.items() if name != 'crc32'})):08x}"


def check_config(entry: Mapping[str, Any]) -> None:
    """Check that an entry holds the settings of a run.

    Raises:
        ValueError: with a phrase, if not.
    """
    check_fields(entry, {}, CONFIG)


def check_summary(entry: Mapping[str, Any]) -> None:
    """Check that an entry is the summary of a run.

    Raises:
        ValueError: with a phrase, if not.
    """
    check_fields(entry, SUMMARY)
    for row in entry["tasks"]:
        if not isinstance(row, dict):
            raise ValueError(f"expected a row of numbers for each task; got {shortened(row)}")
        check_fields(row, ROW)
        check_fields(row["success"], RATE)
        check_fields(row["success_any"], RATE)


def check_timing(entry: Mapping[str, Any]) -> None:
    """Check that an entry is a timing line.

    Raises:
        ValueError: with a phrase, if not.
    """
    if entry.get("event") == "episode":
        check_fields(entry, EPISODE_TIMING)


def check_complete(records: Collection[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Check that the records of a run are those that its summary counted.

    Raises:
        ValueError: with a phrase about the first number that differs.
    """
    rows = {row["task"]: row for row in summary["tasks"]}
    for task in dict.fromkeys([*rows, *(record["task"] for record in records)]):
        mine = [record for record in records if record["task"] == task]
        found = {
            "episodes": len(mine),
            "errors": sum(record["error"] is not None for record in mine),
            "successes at the last step": sum(record["success"] for record in mine),
            "successes at any step": sum(record["success_any"] for record in mine),
        }
        for (what, number), told in zip(found.items(), _counted(rows.get(task)), strict=True):
            if number != told:
                raise ValueError(f"it counts {told} {what} of {task}, the records {number}")


def _counted(row: Mapping[str, Any] | None) -> tuple[int, int, int, int]:
    if row is None:
        return 0, 0, 0, 0
    return row["n"], row["errors"], row["success"]["count"], row["success_any"]["count"]
