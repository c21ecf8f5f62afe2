"""What `helm test` runs: the cluster is ready, and a model answers.

URL, MODEL and KEYS (a file of API keys, perhaps absent) come from the environment.
"""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

URL, MODEL, KEYS = os.environ["URL"], os.environ["MODEL"], Path(os.environ["KEYS"])
WITHIN_S = float(os.environ.get("WITHIN_S", "120"))


def ask(path: str, body: dict[str, object] | None = None) -> bytes:
    headers = {"content-type": "application/json"}
    if KEYS.exists():
        headers["authorization"] = "Bearer " + KEYS.read_text().split()[0]
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=60) as answer:
        return answer.read()


def wait_until_ready() -> None:
    end_s = time.monotonic() + WITHIN_S
    while True:
        try:
            print(ask("/ready").decode())
            return
        except (urllib.error.URLError, OSError) as error:
            said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else str(error)
            if time.monotonic() > end_s:
                raise SystemExit(f"{URL} is not ready: {said}") from error
        time.sleep(2)


wait_until_ready()
answer = json.loads(ask("/v1/completions", {"model": MODEL, "prompt": "hello", "max_tokens": 4}))
if not answer["usage"]["completion_tokens"]:
    raise SystemExit(f"{MODEL} made no token: {answer}")
print(f"{MODEL} answers: {answer['choices'][0]['text']!r}")
