"""``-m``: many command lines of one command, by Hydra's names of launchers.

Hydra's own plugins launch functions of its own applications; here a run is a process with a command line of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: Hydra's words for the launcher of a multirun, and for its options.
CHOICE, OPTIONS = "hydra/launcher=", "hydra.launcher."


def split_launcher(arguments: Sequence[str]) -> tuple[list[str], str, dict[str, str]]:
    """A command line without its words on launching, the launcher's name, and its options as they are written.

    >>> split_launcher(["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=4"])
    (['seed=1,2'], 'joblib', {'n_jobs': '4'})
    """
    names = [word.removeprefix(CHOICE) for word in arguments if word.startswith(CHOICE)]
    given = [word.removeprefix(OPTIONS).partition("=") for word in arguments if word.startswith(OPTIONS)]
    rest = [word for word in arguments if not word.startswith((CHOICE, OPTIONS))]
    return rest, names[-1] if names else "basic", {key: value for key, _, value in given}


def launch(command: str, lines: Sequence[Sequence[str]], launcher: str, options: Mapping[str, Any]) -> list[int]:
    """Run all lines; their statuses, in order.

    Args:
        command: whose.
        lines: overrides of each run.
        launcher: ``basic`` (one after another), ``joblib`` (side by side), ``submitit_local`` or ``submitit_slurm``.
        options: of joblib's ``Parallel``, or parameters of submitit's executor and its ``folder``.

    Raises:
        UnknownNameError: for another launcher.
        InvalidConfigError: if its package is not installed, or takes no such option.
    """
    if launcher not in LAUNCHERS:
        raise UnknownNameError("hydra/launcher", launcher, LAUNCHERS)
    jobs = [(command, f"[{number + 1}/{len(lines)}]", list(line)) for number, line in enumerate(lines)]
    try:
        return LAUNCHERS[launcher](jobs, dict(options))
    except ImportError as error:
        raise InvalidConfigError(
            f"hydra/launcher={launcher} needs a package that is not installed here ({error}): "
            "pip install 'vlaser-gym[sweeps]'."
        ) from error
    except TypeError as error:
        raise InvalidConfigError(f"hydra/launcher={launcher} does not take {', '.join(options)}: {error}.") from error


Job = tuple[str, str, list[str]]


def run_line(command: str, title: str, line: Sequence[str]) -> int:
    """A run in a process of its own; its status."""
    sys.stdout.write(f"{title} {' '.join(line)}\n")
    sys.stdout.flush()
    return subprocess.run([sys.executable, "-m", f"vlaser_gym.{command}", *line], check=False).returncode


def _basic(jobs: Sequence[Job], options: Mapping[str, Any]) -> list[int]:
    if options:
        raise TypeError("runs one after another have no options")
    return [run_line(*job) for job in jobs]


def _joblib(jobs: Sequence[Job], options: dict[str, Any]) -> list[int]:
    from joblib import Parallel, delayed  # noqa: PLC0415  (an extra's)

    # Threads wait for processes; joblib's own processes would only wait too.
    settings = {"n_jobs": -1, "prefer": "threads", **options, "return_as": "list"}
    whole = {key: int(value) if str(value).lstrip("-").isdigit() else value for key, value in settings.items()}
    return list(Parallel(**whole)(delayed(run_line)(*job) for job in jobs))


def _submitit(cluster: str) -> Callable[[Sequence[Job], dict[str, Any]], list[int]]:
    def submit(jobs: Sequence[Job], options: dict[str, Any]) -> list[int]:
        """Exit codes of jobs that the cluster runs, each a task of one array.

        Raises:
            ImportError: without submitit.
        """
        import submitit  # noqa: PLC0415  (an extra's)

        executor = submitit.AutoExecutor(folder=options.pop("folder", "multirun"), cluster=cluster)
        executor.update_parameters(**{key: int(v) if str(v).isdigit() else v for key, v in options.items()})
        with executor.batch():
            submitted = [executor.submit(run_line, *job) for job in jobs]
        return [job.result() for job in submitted]

    return submit


LAUNCHERS: Mapping[str, Callable[[Sequence[Job], dict[str, Any]], list[int]]] = {
    "basic": _basic,
    "joblib": _joblib,
    "submitit_local": _submitit("local"),
    "submitit_slurm": _submitit("slurm"),
}
