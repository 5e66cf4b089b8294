"""The command that brings the original's assets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vlaser_gym.cli import run
from vlaser_gym.commands import assets
from vlaser_gym.envs.assets import MANIFEST

sys.path.insert(0, str(Path(__file__).parent / "envs" / "assets"))
from http_folder import serving


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run("assets", assets.main, assets.arguments(words))
    return int(ended.value.code or 0)


def test_without_assets_check_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", f"directory={tmp_path / 'none'}") == 1
    out = capsys.readouterr().out
    assert "0 of 448 files" in out
    assert "assets fetch" in out
    assert not (tmp_path / "none").exists()


def test_fetch_brings_the_pack_and_prints_the_licences(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "data/custom/models/sink/textured.dae"
    with serving(shared / "assets/simplerenv") as served:
        words = ("fetch", f"source={served.address}", f"directory={tmp_path}")
        assert command(*words) == 0
        out = capsys.readouterr().out
        assert "Apache-2.0" in out
        assert "CC BY-NC 4.0" in out
        assert "448 new, 0 kept, 0 failed" in out
        assert {path for path, _ in served.requests} == set(MANIFEST.files)
        (tmp_path / missing).write_bytes(b"damaged")
        assert command("check", f"directory={tmp_path}") == 1
        assert f"damaged: {missing}" in capsys.readouterr().out
        assert command(*words) == 0
        assert "1 new, 447 kept, 0 failed" in capsys.readouterr().out


def test_a_failed_fetch_names_the_files_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving({}) as served:
        assert command("fetch", f"source={served.address}", f"directory={tmp_path}") == 1
    out = capsys.readouterr().out
    assert "failed: data/custom/info_bridge_custom_baked_tex_v0.json: HTTPError" in out
    assert "Run the same command again" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("import",), "assets import needs the folder"),
        (("import", "nowhere"), "holds none of the original's files"),
        (("fetch", "source=notaurl"), "source must be a URL such as https://host/folder; got 'notaurl'"),
        (("fetch", "source='http://['"), "source must be a URL"),
        (("fetch", "source='http://host:port/'"), "source must be a URL"),
        (("fetch", "source=/some/folder"), "source must be a URL"),
        (("action=steal",), "Unknown action 'steal'"),
        (("steal",), "Cannot read 'steal'"),
    ],
)
def test_bad_words_get_one_sentence(
    words: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*words, f"directory={tmp_path}") == 2
    assert sentence in capsys.readouterr().err
