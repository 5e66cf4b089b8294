"""Serve an agent to openpi's clients: ``python -m vlaser_gym.serve agent=random``; ``--help`` lists the keys."""

from __future__ import annotations

import asyncio

from omegaconf import DictConfig

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.admission import is_loopback, new_token, read_token
from vlaser_gym.agents.server import PolicyServer
from vlaser_gym.agents.vlaser.shipped import with_checkpoint
from vlaser_gym.cli import run, typed
from vlaser_gym.conventions import Convention
from vlaser_gym.settings.commands import ServeSettings


def main(config: DictConfig) -> None:
    """Serve until Ctrl-C."""
    settings = typed(ServeSettings, config)
    name = str(settings.agent.get("name"))
    if settings.token_file is not None:
        token: str | None = read_token(settings.token_file)
    else:
        token = None if is_loopback(settings.host) else new_token()
    server = PolicyServer(
        make_agent(with_checkpoint(settings.agent, settings.checkpoint, settings.robot)),
        name,
        settings.keys,
        settings.timeout,
        int(settings.max_mb * 1e6),
        settings.max_connections,
        int(settings.total_mb * 1e6),
        settings.idle_timeout,
        token,
        None if settings.convention is None else Convention.parse(settings.convention),
        settings.robot,
        settings.protocol,
    )

    def started(port: int) -> None:
        print(f"{name} is served at ws://{settings.host}:{port}; Ctrl-C ends it.", flush=True)
        if token is not None:
            shown = token if settings.token_file is None else f"the one in {settings.token_file}"
            print(f"Clients must present a token (agent.token_file=, or api_key= of openpi's clients): {shown}")
            print(
                "Messages are not encrypted: whoever listens in on the network can read token and images.", flush=True
            )

    asyncio.run(server.run(settings.host, settings.port, started))


def command() -> None:
    """``python -m vlaser_gym.serve``."""
    run("serve", main)
