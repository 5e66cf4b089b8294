"""Numbers of the table, computed from records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.envs.tasks.protocols import Protocol, Score
from vlaser_gym.evaluation.statistics import mean_of_rates, wilson
from vlaser_gym.evaluation.store import address_of

Summary = dict[str, Any]


def summarise(records: Sequence[Mapping[str, Any]], tasks: Iterable[Task]) -> Summary:
    """Rates with 95 % Wilson intervals per task, and their mean over tasks; no clock enters.

    An episode that the simulator did not finish counts as a failure in every rate and in no mean of steps.
    ``mean_first_success_step`` is the mean over the episodes that succeeded at some step.

    Args:
        records: of one run.
        tasks: in the order of the summary; they name the sub-goals.
    """
    rows = []
    for task in tasks:
        mine = [record for record in records if record["task"] == task.name]
        if not mine:
            continue
        steps = [r["steps"] for r in mine if r["error"] is None]
        firsts = [r["first_success_step"] for r in mine if r["first_success_step"] is not None]
        row = {
            "task": task.name,
            "n": len(mine),
            "errors": sum(r["error"] is not None for r in mine),
            "stopped": any(r["ending"] == "terminated" for r in mine),
            "success": _rate(sum(r["success"] for r in mine), len(mine)),
            "success_any": _rate(sum(r["success_any"] for r in mine), len(mine)),
            "subgoals": {
                name: _rate(sum(r["flags_any"].get(name, False) for r in mine), len(mine))
                for name in task.subgoals
                if name != "success"
            },
            "mean_steps": sum(steps) / len(steps) if steps else None,
            "mean_first_success_step": sum(firsts) / len(firsts) if firsts else None,
        }
        rows.append(row)
    return {"schema": 1, "tasks": rows, "mean": {key: _mean(rows, key) for key in ("success", "success_any")}}


def summarise_run(records: Sequence[Mapping[str, Any]], tasks: Iterable[Task], config: Mapping[str, Any]) -> Summary:
    """:func:`summarise` of the episodes that are no repeats; ``repeats`` says how many are, if any."""
    distinct = distinct_episodes(records, config)
    repeats = len(records) - len(distinct)
    return {**summarise(distinct, tasks), **({"repeats": repeats} if repeats else {})}


def distinct_episodes(records: Iterable[Mapping[str, Any]], config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The records without those that repeat another.

    A policy whose flow begins at zero draws nothing: further trials of a layout are the same episode, and an interval
    that counts them is too narrow. Trials of all other agents count, and so do those that differ by a perturbation or
    by their instructions.

    Args:
        records: of one run, by address.
        config: of the run.
    """
    told = config.get("agent_settings") or {}
    draws = told.get("initial_noise") != 0 or "density" in told
    if draws or config.get("perturb") or config.get("instruction"):
        return list(records)
    first: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for record in records:
        first.setdefault((record["task"], record["variant"], record["layout"]), record)
    return list(first.values())


def protocol_scores(protocol: Protocol, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The numbers that a published evaluation reports, of those whose episodes have all been run.

    Returns:
        Per score ``name``, ``value`` (0 to 1) with its 95 % interval ``low`` and ``high``, ``n`` (episodes) and
        ``groups`` (the value is the mean over them).
    """
    success = {address_of(record): bool(record["success"]) for record in records}
    return [_score(s, success) for s in protocol.scores if all(address in success for address in s.episodes)]


def _score(score: Score, success: Mapping[Address, bool]) -> dict[str, Any]:
    groups = [(sum(success[address] for address in group), len(group)) for group in score.groups]
    _, (low, high) = mean_of_rates(groups)
    numbers = {"value": score.value(success), "low": low, "high": high}
    return {"name": score.name, **numbers, "n": len(score.episodes), "groups": len(score.groups)}


def _rate(count: int, n: int) -> dict[str, float]:
    low, high = wilson(count, n)
    return {"count": count, "rate": count / n, "low": low, "high": high}


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    rate, (low, high) = mean_of_rates([(row[key]["count"], row["n"]) for row in rows])
    return {"rate": rate, "low": low, "high": high}


def episodes_per_minute(timing: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Pace of each task: episodes per minute if all environments ran it.

    An episode costs its wall time from reset to end, divided by the environments that shared that time; start-up does
    not count.
    """
    seconds: dict[str, list[float]] = {}
    for entry in timing:
        if entry.get("event") == "episode":
            seconds.setdefault(entry["task"], []).append(entry["seconds"] / entry["lanes"])
    return {task: 60 * len(costs) / sum(costs) for task, costs in seconds.items() if sum(costs) > 0}


def retried_episodes(timing: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The number of episodes of each task that were repeated after a failure of the simulator; absent for none.

    Records do not hold it: what a second try gives is the same as a first one would have given.
    """
    retried = {address_of(entry) for entry in timing if entry.get("event") == "retry"}
    return dict(Counter(address.task for address in sorted(retried, key=lambda address: address.sort_key)))
