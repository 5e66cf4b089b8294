"""What holds whether or not ManiSkill is installed: nothing imports it unasked, and each absence is one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vlaser_gym.cli import load
from vlaser_gym.envs.engines import check_engine, make_engine
from vlaser_gym.envs.engines.maniskill import engine as module
from vlaser_gym.envs.engines.maniskill.vulkan import remedy
from vlaser_gym.errors import InvalidConfigError, MissingAssetError


@pytest.mark.slow
def test_the_default_installation_never_imports_sapien() -> None:
    code = (
        "import sys\n"
        "from vlaser_gym.commands import doctor, eval, parity, train\n"
        "import vlaser_gym.envs.rendering\n"
        "from vlaser_gym.envs.engines.maniskill.engine import ManiskillEngine\n"
        "from vlaser_gym.envs.vector import SceneVectorEnv\n"
        "env = SceneVectorEnv('widowx_stack_cube', observe=('proprio',)); env.reset(); env.close()\n"
        "print([name for name in ('sapien', 'mani_skill') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    with pytest.raises(InvalidConfigError, match=r"pip install -e '\.\[maniskill\]' -c constraints\.txt"):
        make_engine("maniskill", 1)


def test_without_the_assets_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: "1")
    with pytest.raises(MissingAssetError, match=r"vlaser_gym\.assets"):
        make_engine("maniskill", 1, options={"assets": str(tmp_path)})


def test_fewer_than_one_process_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="at least 1; got 0"):
        make_engine("maniskill", 1, options={"processes": 0})


def test_its_settings_are_its_constructors() -> None:
    settings = {"name": "maniskill", "processes": None, "sim_backend": "cpu", "assets": None}
    assert dict(load("eval", ["engine=maniskill"]).engine) == settings
    assert check_engine("maniskill") == "original"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\n', "apt-get install -y -t bookworm-backports mesa-vulkan-drivers"),
        ('ID=ubuntu\nVERSION_CODENAME=noble\n', "version 25 or later"),
    ],
)  # fmt: skip
def test_the_remedy_fits_the_machine(text: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAPIEN_DISABLE_RAY_TRACING", raising=False)
    release = tmp_path / "os-release"
    release.write_text(text)
    assert expected in remedy(release)
    assert "mesa-vulkan-drivers" in remedy(tmp_path / "absent")
    monkeypatch.setenv("SAPIEN_DISABLE_RAY_TRACING", "1")
    assert remedy(release).startswith("Unset SAPIEN_DISABLE_RAY_TRACING")
