"""Asks a server by openpi's own client what to do about stored observations.

Arguments: URL, API key, file of the observations, file for the answers.

Runs in an environment that has openpi-client and none of this gym.
"""

import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main(url: str, key: str, seen: str, answers: str) -> None:
    assert np.__version__.startswith("1."), np.__version__
    client = WebsocketClientPolicy(url, api_key=key)
    messages = np.load(seen, allow_pickle=True)["messages"]
    chunks = [client.infer(message)["actions"] for message in messages]
    # The broker hands out a chunk's actions one by one and asks again when they are used up.
    broker = ActionChunkBroker(client, len(chunks[0]))
    single = [broker.infer(messages[0])["actions"] for _ in chunks[0]]
    try:
        client.infer({"prompt": "and nothing to see"})
        said = "nothing"
    except RuntimeError as error:
        said = str(error)
    agent = client.get_server_metadata()["agent"]
    np.savez(answers, chunks=np.stack(chunks), single=np.stack(single), agent=agent, said=said)


if __name__ == "__main__":
    main(*sys.argv[1:])
