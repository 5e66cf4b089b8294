from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricate_run import addresses, fabricate_run

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.comparison import load_runs
from vlaser_gym.evaluation.published import published_table
from vlaser_gym.evaluation.ranking import mmrv, pearson, rank_against, read_real_rates

#: MMRV and r of SimplerEnv's own rates, recomputed with its own functions.
KNOWN = {
    "coke": (0.0313, 0.975),
    "near": (0.1110, 0.856),
    "open": (0.0000, 0.983),
    "close": (0.1233, 0.771),
    "apple": (0.0000, 0.969),
    "spoon": (0.0000, 0.827),
    "carrot": (0.1113, 0.571),
    "cube": (0.0000, 1.000),
    "eggplant": (0.0000, 0.989),
}


@pytest.mark.parametrize("column", KNOWN)
def test_measures_of_published_rates(column: str) -> None:
    tables = [published_table(name) for name in ("simplerenv-matching", "simplerenv-real")]
    models = [row.model for row in tables[0].rows if column in row.values]
    sim, real = ([table.row(model).values[column] for model in models] for table in tables)
    assert mmrv(sim, real) == pytest.approx(KNOWN[column][0], abs=6e-5)
    assert pearson(sim, real) == pytest.approx(KNOWN[column][1], abs=6e-4)


def test_mmrv_is_its_definition() -> None:
    """Loops over pairs, ties included; only real differences weigh, so the arguments may not be swapped."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        sim, real = rng.integers(0, 5, (2, 6)) / 5
        worst = [
            max(abs(real[i] - real[j]) if (sim[i] > sim[j]) != (real[i] > real[j]) else 0.0 for j in range(6))
            for i in range(6)
        ]
        assert mmrv(sim, real) == pytest.approx(np.mean(worst))
    assert mmrv([0.1, 0.2], [0.9, 0.1]) == pytest.approx(0.8)
    assert mmrv([0.9, 0.1], [0.1, 0.2]) == pytest.approx(0.1)


def test_pearson_of_constants() -> None:
    assert pearson([0.2, 0.2], [0.7, 0.7]) == 1.0
    assert pearson([0.2, 0.2], [0.7, 0.1]) == 0.0
    x, y = np.random.default_rng(1).random((2, 7))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)


@pytest.mark.parametrize("rates", [([], []), ([0.1], [0.1, 0.2]), ([[0.1]], [[0.1]])])
def test_rates_must_match(rates: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="as many rates"):
        mmrv(*rates)


def test_runs_against_real_rates(tmp_path: Path) -> None:
    where = addresses(layouts=10)
    shares = {"weak": 2, "middle": 5, "strong": 9}
    for name, k in shares.items():
        fabricate_run(tmp_path / name, {a: a.layout_index < k for a in where})
    file = tmp_path / "real.yaml"
    file.write_text(
        "one: {widowx_carrot_on_plate: 0.1}\ntwo: {widowx_carrot_on_plate: 0.5, widowx_stack_cube: 0.6}\n"
        "three: {widowx_carrot_on_plate: 0.4, widowx_stack_cube: 0.2}\n"
    )
    runs = load_runs([tmp_path / name for name in shares])
    carrot, cube = rank_against(runs, ["one", "two", "three"], read_real_rates(str(file)))
    assert (carrot.task, carrot.policies) == ("widowx_carrot_on_plate", 3)
    assert carrot.mmrv == pytest.approx(mmrv([0.2, 0.5, 0.9], [0.1, 0.5, 0.4]))
    assert carrot.pearson == pytest.approx(np.corrcoef([0.2, 0.5, 0.9], [0.1, 0.5, 0.4])[0, 1], abs=1e-6)
    assert (cube.task, cube.policies, cube.mmrv) == ("widowx_stack_cube", 2, pytest.approx(0.4))


def test_what_cannot_be_ranked(tmp_path: Path) -> None:
    runs = load_runs([fabricate_run(tmp_path / name, dict.fromkeys(addresses(layouts=2), True)) for name in "ab"])
    real = read_real_rates("simplerenv-real")
    assert real["Octo-base"]["widowx_spoon_on_towel"] == 0.333
    with pytest.raises(InvalidConfigError, match="1 names for 2 runs"):
        rank_against(runs, ["RT-1-X"], real)
    with pytest.raises(UnknownNameError, match="policy 'RT-9'"):
        rank_against(runs, ["RT-1-X", "RT-9"], real)
    with pytest.raises(InvalidConfigError, match="nothing to rank"):
        rank_against(runs, ["RT-1-X", "RT-2-X"], real)
    with pytest.raises(UnknownNameError, match="published table 'nowhere'"):
        read_real_rates("nowhere")
    with pytest.raises(UnknownNameError, match="table of rates by task"):
        read_real_rates("vlaser-robotwin")
    (tmp_path / "bad.yaml").write_text("policy: 0.3\n")
    with pytest.raises(InvalidConfigError, match=r"bad\.yaml must hold policies"):
        read_real_rates(str(tmp_path / "bad.yaml"))
