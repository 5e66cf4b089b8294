"""Training commands that are interrupted at random moments, for tests and by hand.

``python tests/training/interrupted.py sft 20 FOLDER`` interrupts until 20 signals have come and says what it saw; a
fourth argument, such as ``SIGTERM``, names another signal than Ctrl-C's.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from vlaser_gym.agents.vlaser.shipped import SHIPPED

_ON_POLICY = (
    *("task=widowx_stack_cube", "num_envs=2", f"init={SHIPPED / 'nano'}", "algo.n_steps=3", "algo.batch_size=6"),
    *("algo.epochs=1", "algo.critic_warmup=0", "algo.reward=subgoals"),
)
_ROUNDS = (
    *("task=widowx_carrot_on_plate", "num_envs=6", f"init={SHIPPED / 'nano'}", "algo.layouts=2", "algo.trials=3"),
    *("algo.rise=9", "algo.faster_by=1", "algo.noise_level=0.8", "algo.batch_size=2", "save_every=1"),
)
#: Keys of each algorithm, and by how much the total grows with the signals that are wanted.
COMMANDS = {
    "sft": ("algo.batch_size=8", "algo.warmup=2", "save_every=1000"),
    "ppo": _ON_POLICY,
    "dpo": _ROUNDS,
}
TOTALS = {"sft": "algo.steps", "ppo": "algo.iterations", "dpo": "algo.rounds"}


def command(algo: str, run: Path, total: int, *more: str) -> list[str]:
    common = ("threads=1", "device=cpu", "evaluate_episodes=0", f"algo={algo}", f"run={run}", f"{TOTALS[algo]}={total}")
    return [sys.executable, "-m", "vlaser_gym.train", *common, *COMMANDS[algo], *more]


def interrupt(
    arguments: list[str], signals: int, seconds: float, seed: int = 0, number: int = signal.SIGINT
) -> list[int]:
    """Run a command again and again, with so many signals at random moments; returns the exit codes.

    ``seconds`` is how long an undisturbed run takes, start-up included.
    """
    luck, codes = random.Random(seed), []
    for _ in range(signals):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(luck.uniform(0.3, 1.0) * seconds)
        if process.poll() is None:
            process.send_signal(number)
        output = process.communicate(timeout=3600)[0]
        codes.append(process.returncode)
        assert process.returncode in (0, 128 + number, -number), output
        if process.returncode == 0:
            break
    while codes[-1] != 0:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=3600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        codes.append(0)
    return codes


def parameters(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "trainer.pt", weights_only=True)
    return state.get("trained") or state["module"]


def compare(
    algo: str, folder: Path, signals: int, total: int, seconds: float, *more: str, number: int = signal.SIGINT
) -> list[int]:
    """The exit codes; the parameters at the end are those of a run that nobody disturbed."""
    subprocess.run(command(algo, folder / "whole", total, *more), check=True, capture_output=True, timeout=3600)
    codes = interrupt(command(algo, folder / "stopped", total, *more), signals, seconds, number=number)
    ends = [parameters(folder / name) for name in ("whole", "stopped")]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert not list((folder / "stopped").rglob("*.tmp"))
    return codes


if __name__ == "__main__":
    # A shell's background jobs ignore Ctrl-C, and so would the commands that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, str(Path(__file__).parent))
    algo, signals, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    number = signal.Signals[sys.argv[4]] if len(sys.argv) > 4 else signal.SIGINT
    extra: tuple[str, ...] = ()
    if algo == "sft":
        from demonstrations import TINY, write_set

        sizes = (f"settings.{name}={value}" for name, value in TINY.items())
        extra = (f"data={write_set(folder / 'set', 4)}", *sizes)
    total = {"sft": 300 * signals, "ppo": 6 * signals, "dpo": 1 + signals // 4}[algo]
    begun = time.monotonic()
    found = compare(algo, folder, signals, total, {"sft": 9, "ppo": 14, "dpo": 12}[algo], *extra, number=number)
    sys.stdout.write(f"{algo}, {number.name}: exit codes {found}; parameters equal; {time.monotonic() - begun:.0f} s\n")
