"""What all sections of a spec have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")]


class Section(BaseModel):
    """Strict, frozen, and without a key that nobody knows."""

    # Strict: `gpus: yes` and `gpus: "2"` are findings, not 1 and 2.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
