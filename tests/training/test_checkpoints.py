from __future__ import annotations

from pathlib import Path

from test_ppo import make, no_pictures  # noqa: F401  (a fixture)

from vlaser_gym.agents.vlaser.agent import load_agent
from vlaser_gym.training.checkpoints import Checkpoints


def save(text: str):
    def write(folder: Path) -> None:
        (folder / "model").unlink(missing_ok=True)
        (folder / "model").write_text(text)

    return write


def test_the_last_the_earlier_and_the_best(tmp_path):
    kept = Checkpoints(tmp_path, keep=2)
    for step, text in ((10, "a"), (20, "b"), (30, "c")):
        kept.write(step, save(text))
        if text == "b":
            kept.write_best()
    assert [folder.name for folder in kept.steps()] == ["000020", "000030"]
    found = {name: (tmp_path / name / "model").read_text() for name in ("checkpoint", "checkpoints/best")}
    assert found == {"checkpoint": "c", "checkpoints/best": "b"}
    same = [(tmp_path / name / "model").stat().st_ino for name in ("checkpoint", "checkpoints/000030")]
    assert same[0] == same[1], "stored once"
    assert not list(tmp_path.rglob("*.tmp"))


def test_all_stay_where_none_is_to_go(tmp_path):
    kept = Checkpoints(tmp_path, keep=None)
    for step in range(5):
        kept.write(step, save(str(step)))
    assert len(kept.steps()) == 5


def test_a_run_keeps_the_policy_that_scored_best(tmp_path):
    """The second of three iterations scores best; its policy can be loaded, and is that of its step."""
    scores = iter([0.2, 0.8, 0.5])
    trainer = make(tmp_path, iterations=3, save_every=1, evaluate=lambda _: {"success/mean": next(scores)}, every=1)
    trainer.run()
    assert [folder.name for folder in trainer.checkpoints.steps()] == ["000024", "000048", "000072"]
    best, second, last = (
        load_agent(str(tmp_path / name)).policy.state_dict()["action_decoder.weight"]
        for name in ("checkpoints/best", "checkpoints/000048", "checkpoint")
    )
    assert best.equal(second)
    assert not best.equal(last)
