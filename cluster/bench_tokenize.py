"""How many tokens a prompt has, asked of the server: `/tokenize`, as vLLM and Heliostat have it."""

from typing import Literal

import httpx
from pydantic import BaseModel, ValidationError

from cluster.api_key import headers
from heliostat.client.settings import root_of

Api = Literal["chat", "completions"]
TIMEOUT_S = 10.0


class _Counted(BaseModel):
    count: int


class TokenCounter:
    """Counts for one model; an async context manager."""

    def __init__(self, url: str, model: str, api: Api) -> None:
        self._model, self._api = model, api
        limits = httpx.Limits(max_connections=8)
        self._http = httpx.AsyncClient(
            base_url=root_of(url), headers=headers(), timeout=TIMEOUT_S, limits=limits
        )

    async def __aenter__(self) -> "TokenCounter":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()

    async def count(self, text: str) -> int | None:
        """Of a prompt that says only this, chat template and all; None: the server does not say."""
        said = {"messages": [{"role": "user", "content": text}]} if self._api == "chat" else {"prompt": text}
        try:
            answer = await self._http.post("/tokenize", json={"model": self._model, **said})
            return _Counted.model_validate_json(answer.content).count if answer.is_success else None
        except (httpx.HTTPError, ValidationError):
            return None
