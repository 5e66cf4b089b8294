from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vlaser_gym import cli
from vlaser_gym.agents.vlaser import serving_benchmark
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.serving_benchmark import Options, in_turns, measure, served_config
from vlaser_gym.commands import bench
from vlaser_gym.errors import InvalidConfigError, UnknownNameError


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_widths_are_the_presets_and_layers_as_many_as_were_asked_for() -> None:
    full, short = VlaserConfig.preset("vlaser_2b"), served_config("vlaser_2b/2")
    for name in ("width", "mlp_width", "expert_width", "expert_mlp", "vision_width", "vision_mlp", "image_size"):
        assert getattr(short, name) == getattr(full, name), name
    assert (short.max_length, short.num_flow_steps) == (full.max_length, full.num_flow_steps)
    assert (short.layers, short.vision_layers) == (2, 2)
    assert served_config("nano").layers == VlaserConfig.preset("nano").layers
    for wrong in ("vlaser_2b/", "nano/0", "nano/two"):
        with pytest.raises(InvalidConfigError, match="PRESET/LAYERS"):
            served_config(wrong)
    with pytest.raises(UnknownNameError, match="preset"):
        served_config("vlaser_3b")


def test_the_first_of_each_way_does_not_count_and_the_shortest_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: clock[0] / 2)
    taken = {"a": iter([0.5, 3.0, 2.0]), "b": iter([9.0, 1.0, 4.0])}
    order: list[str] = []

    def run(name: str) -> None:
        order.append(name)
        clock[0] += next(taken[name])

    found = in_turns({name: lambda name=name: run(name) for name in taken}, 2)
    assert order == ["a", "b"] * 3
    assert found == {"a": (2.0, 1.0), "b": (1.0, 0.5)}


def test_one_client_and_three_are_timed_beside_a_pass() -> None:
    timing = measure(Options("nano/1", clients=[3], passes=[2], repeats=1))
    assert set(timing.passes) == {1, 2}
    assert set(timing.rounds) == {1, 3}
    assert all(wall > 0 for wall, _ in (*timing.passes.values(), *timing.rounds.values()))
    told = timing.as_dict()
    assert told["one_client_over_pass"][0] == pytest.approx(timing.rounds[1][0] / timing.passes[1][0])
    assert serving_benchmark.table([timing], "x").row_count == 4
    json.dumps(told)


@pytest.mark.slow
def test_the_bench_command_has_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    given = ["task=widowx_stack_cube", "num_envs=1", "seconds=0.01", "engine.render_processes=1", f"output={file}"]
    cli.run("bench", bench.main, [*given, "policies=[nano/1]", "device=cpu"])
    (told,) = json.loads(file.read_text())["policies"]
    assert [(row["batch"], row["way"]) for row in told["decisions"]] == [
        (batch, way) for way in ("cached", "chains") for batch in (1, 8)
    ]
    assert set(told["serving"]["clients_s"]) == {"1", "8"}
    assert "8 clients, served" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.run("bench", bench.main, [*given, "policies=[vlaser_3b]"])
