from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import pytest
from fabricate_episodes import CARROT, CUBE, episode_of, record_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import StorageError, UnknownNameError
from vlaser_gym.evaluation.episodes import read_episodes
from vlaser_gym.evaluation.store import RunStore
from vlaser_gym.settings.algorithms import KINDS
from vlaser_gym.training.data.pairs import explain_nothing, mine_pairs


def at(layout: int, trial: int = 0, task: str = CUBE) -> Address:
    return Address(task, layout=f"region:{layout}", trial=trial)


#: Two successes, the second 20 steps later, and two failures that came differently far.
FOUR = [(True, 10, 4), (True, 30, 4), (False, 60, 1), (False, 60, 3)]


def test_all_pairs_of_one_layout_by_hand() -> None:
    mined = mine_pairs([episode_of(at(1, t), outcome) for t, outcome in enumerate(FOUR)])
    found = {(p.win, p.lose, p.kind) for p in mined.pairs}
    assert found == {
        *((win, lose, "success") for win in (0, 1) for lose in (2, 3)),
        (0, 1, "faster"),
        (3, 2, "further"),
    }
    (row,) = mined.rows
    assert (row["episodes"], row["initial states"], row["repeated"], row["used"]) == (4, 1, 1, 6)
    assert [row[f"{kind} pairs"] for kind in KINDS] == [4, 1, 1]
    assert [p.kind for p in mined.pairs[:4]] == ["success"] * 4, "the plainest preferences first"


def test_the_cap_takes_plain_preferences_and_spreads_over_episodes() -> None:
    episodes = [episode_of(at(1, t), outcome) for t, outcome in enumerate(FOUR)]
    two = mine_pairs(episodes, per_layout=2).pairs
    assert [p.kind for p in two] == ["success"] * 2
    assert {p.win for p in two} == {0, 1}, "each success once"
    assert {p.lose for p in two} == {2, 3}, "each failure once"


def test_kinds_can_be_chosen_and_close_finishes_do_not_count() -> None:
    episodes = [episode_of(at(1, t), outcome) for t, outcome in enumerate(FOUR)]
    assert [p.kind for p in mine_pairs(episodes, kinds=["faster"]).pairs] == ["faster"]
    assert not mine_pairs(episodes, kinds=["faster"], faster_by=21).pairs
    with pytest.raises(UnknownNameError, match="further"):
        mine_pairs(episodes, kinds=["furthest"])


def test_tasks_give_equally_many_pairs_and_layouts_take_turns() -> None:
    many = [episode_of(at(k, t), (t == 0, 20, 4)) for k in range(3) for t in range(4)]
    few = [episode_of(at(k, t, CARROT), (t == 0, 20, 4)) for k in range(2) for t in range(2)]
    episodes = many + few
    mined = mine_pairs(episodes)
    assert Counter(episodes[p.win].task for p in mined.pairs) == {CUBE: 2, CARROT: 2}
    assert [row["success pairs"] for row in mined.rows] == [2, 9]
    alone = mine_pairs(many, most=3).pairs
    assert len({many[p.win].start for p in alone}) == 3, "one of each layout before a second of any"


def test_episodes_of_several_runs_and_engines(tmp_path) -> None:
    for name, outcome in (("a", (True, 12, 4)), ("b", (False, 60, 2))):
        with RunStore(tmp_path / name, {}) as store:
            store.add(record_of(at(7), outcome), None)
            store.add({**record_of(at(8), (False, 0, 0)), "ending": "error", "error": "diverged"}, None)
    episodes = read_episodes([tmp_path / "a", tmp_path / "b"])
    assert [e.run.name for e in episodes] == ["a", "b"], "what the simulator could not finish is no preference"
    assert [e.progress for e in episodes] == [4, 2]
    (pair,) = mine_pairs(episodes).pairs
    assert (pair.win, pair.lose) == (0, 1)
    with pytest.raises(StorageError, match="store=training"):
        episodes[0].training()
    other = episode_of(at(7), (False, 60, 0), engine="maniskill")
    assert not mine_pairs([episodes[0], other]).pairs, "another engine's initial state is another one"


outcomes = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([CUBE, CARROT]),
        st.booleans(),
        st.integers(1, 60),
        st.integers(0, 4),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(outcomes, st.integers(1, 5), st.one_of(st.none(), st.integers(1, 20)), st.integers(0, 3))
def test_pairs_began_alike_and_the_better_one_wins(rows, cap, most, seed) -> None:
    episodes = [
        episode_of(at(layout, trial, task), (success, steps, progress))
        for trial, (layout, task, success, steps, progress) in enumerate(rows)
    ]
    mined = mine_pairs(episodes, per_layout=cap, most=most, seed=seed)
    for pair in mined.pairs:
        win, lose = episodes[pair.win], episodes[pair.lose]
        assert win.start == lose.start
        assert (win.record["task"], win.record["layout"]) == (lose.record["task"], lose.record["layout"])
        if pair.kind == "success":
            assert win.success
            assert not lose.success
        elif pair.kind == "faster":
            assert win.success
            assert lose.success
            assert win.record["steps"] + 8 <= lose.record["steps"]
        else:
            assert not win.success
            assert not lose.success
            assert win.progress > lose.progress
    assert len({(p.win, p.lose) for p in mined.pairs}) == len(mined.pairs) <= (most or 10**9)
    per_start = Counter(episodes[p.win].start for p in mined.pairs)
    assert max(per_start.values(), default=0) <= cap
    assert mine_pairs(episodes, per_layout=cap, most=most, seed=seed) == mined
    tasks = Counter(episodes[p.win].task for p in mined.pairs)
    if len(tasks) == 2:
        a, b = tasks.values()
        assert abs(a - b) <= 1


@settings(max_examples=30, deadline=None)
@given(outcomes)
def test_every_beginning_is_balanced_over_layouts(rows) -> None:
    episodes = [episode_of(at(r[0], t), (r[2], r[3], r[4])) for t, r in enumerate(rows)]
    whole = mine_pairs(episodes, per_layout=4).pairs
    available = Counter(episodes[p.win].start for p in whole)
    for size in range(len(whole) + 1):
        used = Counter(episodes[p.win].start for p in whole[:size])
        counts = sorted(min(used[start], available[start]) for start in available if used[start] < available[start])
        full = max(used.values(), default=0)
        assert all(b - a <= 1 for a, b in pairwise(counts))
        assert not counts or full - counts[0] <= 1


def test_192_episodes_take_no_time(tmp_path) -> None:
    with RunStore(tmp_path / "run", {}) as store:
        for layout in range(24):
            for trial in range(8):
                success = (layout + trial) % 3 == 0
                store.add(record_of(at(layout, trial), (success, 10 + 4 * trial, trial % 4)), None)
    begun = time.process_time()
    mined = mine_pairs(read_episodes([tmp_path / "run"]))
    assert time.process_time() - begun < 2
    assert len(mined.pairs) == 24 * 16


@pytest.mark.parametrize(
    ("episodes", "kinds", "why"),
    [
        ([], KINDS, "no finished episode; collect some with store=training trials=8"),
        ([episode_of(at(k), (True, 10, 4)) for k in range(5)], KINDS, "none of 5 episodes shares its initial state"),
        (
            [episode_of(at(k, t), (False, 60, 1)) for k in range(2) for t in range(3)],
            KINDS,
            "in each of 2 repeated initial states all episodes went equally well",
        ),
        ([episode_of(at(1, t), o) for t, o in enumerate(FOUR[2:])], ["success"], "of 1 pairs none is of a kind"),
    ],
)
def test_an_empty_result_says_why(episodes, kinds, why) -> None:
    mined = mine_pairs(episodes, kinds=kinds)
    assert not mined.pairs
    sentence = str(explain_nothing(mined, ["runs/a"]))
    assert sentence.startswith("No pairs to learn from in runs/a: ")
    assert why in sentence
    assert "\n" not in sentence
