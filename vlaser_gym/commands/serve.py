"""Serve an agent to openpi's clients: ``python -m vlaser_gym.serve agent=random``; ``--help`` lists the keys."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from omegaconf import DictConfig

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.server import PolicyServer
from vlaser_gym.cli import run, typed
from vlaser_gym.settings.commands import ServeSettings


def main(config: DictConfig) -> None:
    """Serve until Ctrl-C."""
    settings = typed(ServeSettings, config)
    name = str(settings.agent.get("name"))
    given = {} if settings.checkpoint is None else {"checkpoint": settings.checkpoint}
    server = PolicyServer(
        make_agent({**settings.agent, **given}),
        name,
        settings.keys,
        settings.timeout,
        int(settings.max_mb * 1e6),
        settings.max_connections,
    )

    def started(port: int) -> None:
        print(f"{name} is served at ws://{settings.host}:{port}; Ctrl-C ends it.", flush=True)
        if not _loopback(settings.host):
            print("Whoever reaches this address can use it: there is no password.", flush=True)

    asyncio.run(server.run(settings.host, settings.port, started))


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def command() -> None:
    """``python -m vlaser_gym.serve``."""
    run("serve", main)
