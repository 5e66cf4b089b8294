from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from vlaser_gym import cli
from vlaser_gym.errors import GymError, InvalidConfigError
from vlaser_gym.settings.algorithms import ALGORITHM_SETTINGS, GrpoSettings, PpoSettings
from vlaser_gym.settings.commands import COMMAND_SETTINGS, EvalKeys
from vlaser_gym.settings.fields import (
    REQUIRED,
    Settings,
    check,
    check_unread,
    defaults_of,
    groups_of,
    option,
    options_of,
)
from vlaser_gym.settings.groups import CONFIG_DIR, groups


@dataclass
class Ranges(Settings):
    rate: float = option(0.5, "A rate.", above=0)
    share: float = option(0.5, "A share.", above=0, most=1)
    discount: float = option(1.0, "A discount.", least=0, most=1)
    decay: float = option(0.0, "A decay.", least=0, below=1)
    level: float = option(0.5, "A level.", above=0, below=1)
    count: int = option(1, "A count.", least=1)
    limit: float | None = option(None, "A limit.", above=0, most=1.5)
    number: int | None = option(None, "A number.", least=1)
    loss: str = option("tpo", "A loss.", choices=("tpo", "dpo"))
    density: str | None = option(None, "A density.", choices=("sde", "noise"))
    kinds: list[str] = option(["a"], "Kinds.", choices=("a", "b"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rate": 0.0}, "rate must be above 0; got 0.0."),
        ({"rate": math.nan}, "rate must be above 0; got nan."),
        ({"rate": "fast"}, "rate must be above 0; got fast."),
        ({"rate": None}, "rate must be above 0; got None."),
        ({"share": -1}, "share must be above 0 and at most 1; got -1."),
        ({"share": 1.01}, "share must be above 0 and at most 1; got 1.01."),
        ({"discount": 1.01}, "discount must be in [0, 1]; got 1.01."),
        ({"discount": -0.01}, "discount must be in [0, 1]; got -0.01."),
        ({"decay": 1}, "decay must be in [0, 1); got 1."),
        ({"level": 1}, "level must be above 0 and below 1; got 1."),
        ({"count": 0}, "count must be at least 1; got 0."),
        ({"limit": 2}, "limit must be above 0 and at most 1.5 or null; got 2."),
        ({"limit": 0}, "limit must be above 0 and at most 1.5 or null; got 0."),
        ({"number": 0}, "number must be at least 1 or null; got 0."),
        ({"density": "flow"}, "density must be sde, noise or null; got 'flow'."),
        ({"loss": "pto"}, "Unknown loss 'pto': expected one of 2 names; nearest: tpo, dpo."),
        ({"kinds": ["a", "c"]}, "Unknown kinds 'c': expected one of 2 names; nearest: a, b."),
    ],
    ids=str,
)
def test_what_is_out_of_its_range_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GymError) as caught:
        Ranges(**changes)
    assert str(caught.value) == sentence


def test_the_ends_of_a_range_that_belong_to_it_pass() -> None:
    Ranges(share=1, discount=0, decay=0.999, count=1, limit=1.5, rate=math.inf, density="sde", kinds=[])


def test_a_class_without_the_base_is_checked_too_and_the_prefix_is_said() -> None:
    @dataclass
    class Plain:
        rate: float = option(0.5, "A rate.", above=0)

    with pytest.raises(InvalidConfigError, match=r"^algo\.rate must be above 0; got 0\.$"):
        check(Plain(rate=0), "algo.")
    with pytest.raises(InvalidConfigError, match=r"^algo\.rate must be above 0; got 0\.0\.$"):
        cli.typed(Plain, {"rate": 0}, "algo.")


def test_mutable_defaults_are_not_shared() -> None:
    Ranges().kinds.append("b")
    assert Ranges().kinds == ["a"]
    defaults_of(PpoSettings)["freeze"].clear()
    assert PpoSettings().freeze == ["vision", "embedding", "language"]


def test_what_a_class_has_settled_is_no_key() -> None:
    keys = options_of(GrpoSettings)
    assert {"group_size", "rounds", "batch_size"} <= keys.keys()
    assert not {"n_steps", "gamma", "gae_lambda", "critic_warmup", "reward", "name"} & keys.keys()
    assert (GrpoSettings().critic_warmup, PpoSettings().critic_warmup) == (0, 2)


def test_keys_that_nothing_reads_are_left_alone() -> None:
    check_unread(EvalKeys(), ("episodes", "level"), "this")
    with pytest.raises(InvalidConfigError, match=r"^level=0\.1 is not read with this; leave it out\.$"):
        check_unread(EvalKeys(level=0.1), ("episodes", "level"), "this")


EVERY = {**{f"algo={name}": cls for name, cls in ALGORITHM_SETTINGS.items()}, **COMMAND_SETTINGS}


@pytest.mark.parametrize("name", EVERY)
def test_every_key_has_a_sentence_of_its_own(name: str) -> None:
    """No sentence goes on in the next key's, and the class says what it is for."""
    cls = EVERY[name]
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")
    for key, known in options_of(cls).items():
        assert known.sentence.endswith("."), key
        assert known.sentence[0].isupper() or known.sentence.split()[0].rstrip(",:.").isidentifier(), key
        assert known.sentence.count("(") == known.sentence.count(")"), key


@pytest.mark.parametrize("name", EVERY)
def test_settings_work_without_arguments(name: str) -> None:
    """With the defaults that the command line has; what must be given must be given."""
    cls = EVERY[name]
    needed = {key: "x" for key, value in defaults_of(cls).items() if value is REQUIRED}
    assert (name, set(needed)) in [
        *(
            (other, set())
            for other in EVERY
            if other not in ("ask", "render", "convert", "data", "questions", "reason", "verify")
        ),
        ("ask", {"question"}),
        ("render", {"run"}),
        ("questions", {"output"}),
        ("reason", {"data"}),
        ("verify", {"path"}),
        ("data", {"data"}),
        ("convert", {"source", "target"}),
    ]
    made = cls(**needed)
    if name in COMMAND_SETTINGS:
        assert made == cli.typed(cls, cli.load(name, [f"{key}=x" for key in needed]))
    else:
        assert made == cli.typed(cls, cli.load("train", [name]).algo)
        assert isinstance(getattr(made, "betas", ()), tuple)


def test_the_groups_of_a_command_begin_with_options_that_exist() -> None:
    for cls in COMMAND_SETTINGS.values():
        for group, chosen in groups_of(cls).items():
            assert chosen in groups()[group]


def test_no_file_holds_a_second_copy() -> None:
    """What stands in the package's YAML files is what people choose between, not what the commands' keys are."""
    assert not list(CONFIG_DIR.glob("*.yaml"))
    assert {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()}.isdisjoint({"algo", "train", "eval"})
