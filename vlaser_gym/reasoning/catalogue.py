"""All kinds of questions."""

from __future__ import annotations

from collections.abc import Sequence

from vlaser_gym.errors import UnknownNameError
from vlaser_gym.reasoning import embodied, grounding, planning, spatial
from vlaser_gym.reasoning.kinds import Kind

#: By name, family after family.
KINDS: dict[str, Kind] = {
    kind.name: kind for family in (grounding, spatial, embodied, planning) for kind in family.KINDS
}
FAMILIES = tuple(dict.fromkeys(kind.family for kind in KINDS.values()))


def chosen_kinds(names: Sequence[str]) -> list[Kind]:
    """Kinds by their names or their families' names; all, for none.

    Raises:
        UnknownNameError: for a name that is neither.
    """
    for name in names:
        if name not in KINDS and name not in FAMILIES:
            raise UnknownNameError("kind of question", name, [*FAMILIES, *KINDS])
    return [kind for kind in KINDS.values() if not names or kind.name in names or kind.family in names]
