"""The command that says how far an engine is from the original."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlaser_gym import cli, parity


def run(*overrides: str) -> int:
    try:
        cli.run("parity", parity.main, list(overrides))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("figures=pictures",), "add look=original"),
        (("look=original", "figures=pixels"), "Unknown figures 'pixels'"),
        (("num_envs=0",), "num_envs must be at least 1"),
    ],
)
@pytest.mark.golden
def test_bad_settings_get_one_sentence(
    golden: Path, words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(f"golden={golden}", *words) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.golden
def test_pictures_need_the_pack_and_say_so(golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"golden={golden}", "look=original", "figures=pictures", f"engine.assets={tmp_path}") == 2
    assert "assets fetch" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.golden
def test_the_table_holds_the_figures_and_a_pair_is_drawn(
    golden: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assets = shared / "assets/simplerenv"
    words = ("task=widowx_stack_cube", "look=original", "figures=pictures", f"engine.assets={assets}")
    assert run(*words, f"golden={golden}", f"beside={tmp_path}/pairs") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "widowx_stack_cube" in line)
    pictures, least, iou, ssim, photograph, _ = (float(cell) for cell in row.strip("| ").split("|")[1:])
    assert pictures == 4
    assert least >= 0.95
    assert iou >= least
    assert ssim >= 0.7 > photograph
    assert (tmp_path / "pairs" / "widowx_stack_cube.png").is_file()
