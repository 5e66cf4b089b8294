"""Asks a server by OpenAI's own client library: its first model's name and answer go into a file of JSON.

Arguments: URL, question, file of a PNG image, file for the answer.

Runs in an environment that has openai and none of this gym.
"""

import base64
import json
import sys
from pathlib import Path

from openai import OpenAI


def main(url: str, question: str, image: str, answer: str) -> None:
    client = OpenAI(base_url=url, api_key="none")
    model = client.models.list().data[0].id
    picture = "data:image/png;base64," + base64.b64encode(Path(image).read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    Path(answer).write_text(json.dumps([model, reply.choices[0].message.content]))


if __name__ == "__main__":
    main(*sys.argv[1:])
