"""What a module says of itself: `heliostat.json` beside its weights.

`heliostat finetune` writes it, `heliostat plan` reads it. A module without one is taken as it is: that is
every checkpoint that was not made here.
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from heliostat.errors import HeliostatError

CARD_FILE = "heliostat.json"


class Method(StrEnum):
    """How a module was made; `quantized` is the base in fewer bits, with nothing trained."""

    SUN = "sun"
    QSUN = "qsun"
    PREFILL_SHARE = "prefillshare"
    ICARUS = "icarus"
    FULL = "full"
    QUANTIZED = "quantized"


class ModuleCard(BaseModel):
    """Facts that decide whether two modules fit, and what was measured of them.

    `base` and `partner` are digests of weights (`kvtransfer.contract.digest_weights`): what the module was
    tuned from, and the frozen module on the other side that it was trained against. `partner` is empty for
    `full` and `quantized`, which were trained against nobody else.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    method: Method
    role: Literal["prefill", "decode", "both"]
    kind: Literal["weights", "adapter"]
    base: str
    partner: str = ""
    tokenizer: str = Field(description="Digest of the base's tokenizer.json.")
    boundary: Literal["last-prompt-token"] = Field(
        default="last-prompt-token", description="The decode module runs x_N and all after it (rule 1)."
    )
    metrics: dict[str, float] = Field(
        default_factory=dict, description="For example heldout_exact_match, heldout_loss, heldout_samples."
    )
    training: dict[str, JsonValue] = Field(
        default_factory=dict, description="Settings and library versions, for people."
    )


def write_card(folder: Path, card: ModuleCard) -> None:
    """Put the card beside the weights in `folder`."""
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> ModuleCard | None:
    """The card of the module in `folder`; None if it has none. Raises HeliostatError for a broken one."""
    file = folder / CARD_FILE
    if not file.is_file():
        return None
    try:
        return ModuleCard.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise HeliostatError(f"{file}: {place}: {first['msg']}; make the module again") from error
