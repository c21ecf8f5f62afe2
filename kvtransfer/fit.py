"""Do two modules belong together? What their cards say of how they were trained, against what a spec pairs.

The contract (`kvtransfer.contract`) says whether one module can read the KV of another at all. Two modules
that can are still wrong together when they were not trained for each other: fluent text, wrong answers (the
naive pairing of docs/modules.md). Modules without a card are taken as they are.
"""

from dataclasses import dataclass

from heliostat.wire import Role
from kvtransfer.adapter import WRITERS, AdapterModule
from kvtransfer.card import Method, ModuleCard
from kvtransfer.contract import Module


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a model: a pool's checkpoint, its card, and the adapter on it, if any."""

    name: str
    module: Module
    card: ModuleCard | None
    adapter: AdapterModule | None = None

    @property
    def trained(self) -> ModuleCard | None:
        """The card that speaks for this side: the adapter's, where there is one."""
        return self.adapter.card if self.adapter else self.card


def module_misfit(card: ModuleCard | None, base: Module, where: str = "family.base") -> str | None:
    """Why a module with this card does not belong to `base`, which stands in `where`; None: it may."""
    if card is None:
        return None
    if card.base != base.weights:
        return (
            f"it was made from another base (weights {_short(card.base)}, {where} has "
            f"{_short(base.weights)}); make it again from this base"
        )
    if card.tokenizer != base.contract.tokenizer:
        return f"it was made with another tokenizer than {where}; make it again from this base"
    return None


def adapter_misfit(adapter: AdapterModule, base: Module, role: Role, icarus: bool) -> str | None:
    """Why an adapter cannot serve on `base`, the weights of a pool in that role; None: it can.

    `icarus`: the pool's base writes all KV, and adapters only read it.
    """
    card = adapter.card
    if card and card.role not in (role.value, "both"):
        return f"it was trained for the {card.role} side; list it in a {card.role} pool"
    if icarus and (changed := sorted(adapter.targets & WRITERS)):
        return (
            f"it changes {', '.join(changed)}, but in an ICaRus pool the base alone writes keys and values; "
            "train it with `heliostat finetune icarus`"
        )
    if card is None:
        return None
    if problem := module_misfit(card, base, "this pool"):
        return problem
    if icarus and card.method is not Method.ICARUS:
        return f"it was trained by `{card.method}`, not by `icarus`, and would read KV that it does not know"
    if not icarus and card.method is Method.ICARUS:
        return "it is an ICaRus adapter, which reads what the base writes; say `icarus: true` in its pool"
    return None


def pair_misfit(writer: Side, reader: Side) -> str | None:
    """Why a prefill side and a decode side were not trained for each other; None: nothing speaks against it.

    SUN and QSUN modules name the decode module that they were trained against, PrefillShare and ICaRus
    modules the prefill module; a module fine-tuned in both roles belongs on both sides.
    """
    for side, other in ((writer, reader), (reader, writer)):
        card = side.trained
        if card is None:
            continue
        if card.method is Method.FULL:
            if _identity(side) != _identity(other):
                return f"{side.name} was fine-tuned for both roles: pair it with itself, not {other.name}"
        elif card.partner:
            if other.adapter is not None:
                return f"{side.name} was trained against plain weights, not against {other.name}"
            if card.partner != other.module.weights:
                return (
                    f"{side.name} was trained by `{card.method}` against weights {_short(card.partner)}, "
                    f"but {other.name} holds {_short(other.module.weights)}; "
                    f"{_remedy(card.method, other)}"
                )
    return None


def _remedy(method: Method, other: Side) -> str:
    quantized = other.card is not None and other.card.method is Method.QUANTIZED
    if method is Method.SUN and quantized:
        return "train it against this decode module with `heliostat finetune qsun`"
    return "pair it with what it was trained against, or train it again"


def _identity(side: Side) -> tuple[str, str]:
    return side.module.weights, side.adapter.digest if side.adapter else ""


def _short(digest: str) -> str:
    return digest[:8]
