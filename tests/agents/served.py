"""A policy server in a thread, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlaser_gym.agents.server import PolicyServer


@contextmanager
def served(agent: Any, name: str = "mine", **options: Any) -> Iterator[str]:
    """Serve until the block ends; its URL."""
    ports: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    server = PolicyServer(agent, name, **options)

    def started(port: int) -> None:
        ports.append(port)
        ready.set()

    async def work() -> None:
        try:
            await server.run("127.0.0.1", 0, started)
        except asyncio.CancelledError:
            return

    task = loop.create_task(work())
    thread = threading.Thread(target=lambda: loop.run_until_complete(task), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"ws://127.0.0.1:{ports[0]}"
    finally:
        loop.call_soon_threadsafe(task.cancel)
        # A connection that does not answer its closing is waited for ten seconds.
        thread.join(60)
        loop.close()
