"""Loads the pair that a method trains: which module trains, which is frozen, and the objective over both."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.objective import Icarus, Objective, TwoForwards, collate_right, shared_objective
from finetune.quantize_load import is_quantized, load_dequantized
from finetune.settings import Lora, Settings
from finetune.views import plain_view
from heliostat.errors import HeliostatError
from kvtransfer.card import Method, read_card
from kvtransfer.contract import digest_weights


@dataclass(frozen=True)
class Training:
    """What one run trains. `saved` is what goes to disk: the trained model, or its adapter."""

    objective: Objective
    saved: PreTrainedModel | PeftModel
    partner: str


def local_base(name: str) -> Path:
    """The base's directory; a hub name is downloaded. Raises HeliostatError."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise HeliostatError(f"--base {name}: no such directory, and no such model on the hub") from error


def load_training(settings: Settings, base: Path) -> Training:
    """The pair of `settings.method` over the checkpoint in `base`. Raises HeliostatError."""
    # Under mixed precision what is frozen keeps the type it is served in; what trains is float32 always.
    frozen = torch.float32 if settings.precision == "float32" else "auto"
    adapter = settings.adapter
    trained = AutoModelForCausalLM.from_pretrained(base, dtype=frozen if adapter else torch.float32).eval()
    saved = trained
    if adapter:
        saved = add_lora(trained, adapter, base)
    if settings.method is Method.FULL:
        return Training(shared_objective(trained, trained, settings.one_forward), saved, "")
    if settings.method is Method.QSUN:
        partner, digest = _quantized(settings, base), digest_weights(settings.decode or base)
    else:
        digest = digest_weights(base)
        partner = plain_view(trained) if adapter else AutoModelForCausalLM.from_pretrained(base, dtype=frozen)
    partner.requires_grad_(False).eval()
    if settings.method is Method.ICARUS:
        return Training(Icarus(partner, trained), saved, digest)
    if settings.role == "decode":
        return Training(shared_objective(partner, trained, settings.one_forward), saved, digest)
    freeze_unreached(trained, partner)
    return Training(shared_objective(trained, partner, settings.one_forward), saved, digest)


def add_lora(model: PreTrainedModel, lora: Lora, base: Path) -> PeftModel:
    """Put an untrained adapter on `model`, in place; its other weights are frozen."""
    linears = {name.rsplit(".")[-1] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if unknown := sorted(set(lora.targets) - linears):
        raise HeliostatError(
            f"--lora-targets {', '.join(unknown)}: the base has no such layer; it has "
            f"{', '.join(sorted(linears))}"
        )
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=sorted(lora.targets),
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        ),
    )
    # The adapter names its base without a machine's path.
    adapted.peft_config["default"].base_model_name_or_path = base.resolve().name
    return adapted


def freeze_unreached(prefill: PreTrainedModel, decode: PreTrainedModel) -> None:
    """Freeze what no loss reaches: past the last layer's K and V a prefill module only predicts.

    Weight decay would change these weights and an optimizer would keep moments of them.
    """
    trained = [parameter for parameter in prefill.parameters() if parameter.requires_grad]
    logits = TwoForwards(prefill, decode, "").forward(**collate_right([([0, 0], [0])], 0))
    gradients = torch.autograd.grad(logits.sum(), trained, allow_unused=True)
    for parameter, gradient in zip(trained, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _quantized(settings: Settings, base: Path) -> PreTrainedModel:
    folder = settings.decode or base
    if not folder.is_dir() or not is_quantized(folder):
        raise HeliostatError(
            f"--decode {folder}: no quantized checkpoint; make one with `heliostat quantize`"
        )
    card = read_card(folder)
    if card and card.base != digest_weights(base):
        raise HeliostatError(f"--decode {folder}: quantized from another base than {base}; quantize this one")
    return load_dequantized(folder)
