"""A LoRA adapter on disk, as PEFT writes it: which modules it changes, its rank, and a digest of both."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from heliostat.errors import HeliostatError
from heliostat.wire import Adapter
from kvtransfer.card import ModuleCard, read_card
from kvtransfer.contract import digest_weights

CONFIG_FILE = "adapter_config.json"

KEYS_AND_VALUES = frozenset({"k_proj", "v_proj", "qkv_proj"})
"""What an ICaRus adapter must leave alone: keys and values are the base's (rule 8)."""


WRITERS = KEYS_AND_VALUES | {"embed_tokens"}
"""The same, and the embedding, which the base's rows begin with."""


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """One adapter: `digest` covers its weights, rank, scaling and targets."""

    path: Path
    digest: str
    rank: int
    targets: frozenset[str]
    card: ModuleCard | None

    @property
    def reference(self) -> Adapter:
        """As it travels with requests."""
        card = self.card
        made = (card.method.value, card.partner, card.base) if card else ()
        return Adapter(self.digest, str(self.path), *made)


def read_adapter(path: Path) -> AdapterModule:
    """The adapter in a directory. Raises HeliostatError with the file that is missing or wrong."""
    file = path / CONFIG_FILE
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise HeliostatError(f"{file}: missing; is this a LoRA adapter as PEFT writes it?") from error
    except ValueError as error:
        raise HeliostatError(f"{file}: not JSON: {error}") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise HeliostatError(f"{file}: peft_type is {kind!r}; only LORA can be served")
    rank, targets = config.get("r"), config.get("target_modules")
    if not isinstance(rank, int) or not isinstance(targets, list) or not targets:
        raise HeliostatError(f"{file}: `r` must be a number and `target_modules` a list of names")
    # PEFT matches by the end of a name: `self_attn.k_proj` is `k_proj`, too.
    targets = sorted({str(target).rsplit(".", 1)[-1] for target in targets})
    settings = [rank, config.get("lora_alpha"), config.get("use_rslora"), targets]
    digest = hashlib.blake2b(f"{digest_weights(path)}|{json.dumps(settings)}".encode(), digest_size=8)
    return AdapterModule(path, digest.hexdigest(), rank, frozenset(targets), read_card(path))
