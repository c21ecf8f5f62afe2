"""Do two modules belong together? What their cards say of how they were trained, against what a spec pairs.

The contract (`kvtransfer.contract`) says whether one module can read the KV of another at all. Two modules
that can are still wrong together when they were not trained for each other: fluent text, wrong answers (the
naive pairing of docs/modules.md). Modules without a card are taken as they are by `heliostat plan`; between
running replicas, whose pools may be of two versions, they must have been deployed together
(`version_misfit`).
"""

from dataclasses import dataclass, replace

from heliostat.errors import ContractError
from heliostat.wire import Adapter, Role, Version, adapted_domain
from kvtransfer.adapter import WRITERS, AdapterModule
from kvtransfer.card import Method, ModuleCard
from kvtransfer.contract import Module, contract_difference


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


@dataclass(frozen=True, slots=True)
class _Made:
    """One side of a pair, in the terms of cards: `method` is empty without one."""

    name: str
    weights: str
    adapter: str
    method: str
    partner: str
    quantized: bool


def pair_misfit(writer: Side, reader: Side) -> str | None:
    """Why a prefill side and a decode side were not trained for each other; None: nothing speaks against it.

    SUN and QSUN modules name the decode module that they were trained against, PrefillShare and ICaRus
    modules the prefill module; a module fine-tuned in both roles belongs on both sides.
    """
    return _cards_misfit(_side(writer), _side(reader))


def version_misfit(writer: Version, reader: Version, untrained_pair: bool = False) -> str | None:
    """Why a replica that runs `reader` must not read what one that runs `writer` wrote; None: it may.

    The contract comes first, then the cards, unless the spec wants an `untrained_pair`. Where no card speaks
    for the pair, some spec must have deployed the two together: two versions that only met because their
    pools roll at different speeds give fluent, wrong text.
    """
    if problem := _contract_misfit(writer, reader):
        return problem
    if reader.icarus and writer.domain != reader.domain:
        return f"{_name(reader)} reads only what its own weights wrote, not KV of {_name(writer)}"
    left, right = _version(writer), _version(reader)
    if not untrained_pair:
        if problem := _cards_misfit(left, right):
            return problem
        if _belong(left, right):
            return None
    if reader.source in writer.partners or writer.source in reader.partners:
        return None
    return (
        f"no spec has deployed {_name(writer)} together with {_name(reader)}, and no card speaks for the pair"
    )


def same_answers(one: Version, other: Version) -> bool:
    """Whether the one may go on with what the other has begun: the same weights in the same form."""
    return (one.weights, one.contract, one.icarus) == (other.weights, other.contract, other.icarus)


def with_adapter(version: Version, adapter: Adapter | None) -> Version:
    """The module that a request meets in a replica of that version: what its adapter's card says counts.

    An ICaRus base stays what it is: it writes all KV, whatever adapter reads it.
    """
    if adapter is None or version.icarus:
        return version
    return replace(
        version,
        domain=adapted_domain(version.domain, adapter),
        method=adapter.method,
        partner=adapter.partner,
        adapter=adapter.digest,
    )


def adapter_version_misfit(adapter: Adapter | None, version: Version, source: str) -> str | None:
    """Why an adapter does not belong on the weights of that version; None: it may.

    Without a card, it belongs to the weights that its own spec names, `source`, and to no others.
    """
    if adapter is None:
        return None
    if adapter.base:
        if adapter.base == version.weights:
            return None
        return f"the adapter {_short(adapter.digest)} was made from another base than {_name(version)}"
    if version.source == source:
        return None
    return f"the adapter {_short(adapter.digest)} has no card, and its spec lists it on {source}"


def _contract_misfit(writer: Version, reader: Version) -> str | None:
    difference = contract_difference(writer.contract, reader.contract)
    return str(ContractError(_name(writer), _name(reader), *difference)) if difference else None


def _cards_misfit(writer: _Made, reader: _Made) -> str | None:
    for side, other in ((writer, reader), (reader, writer)):
        if side.method == Method.FULL:
            if (side.weights, side.adapter) != (other.weights, other.adapter):
                return f"{side.name} was fine-tuned for both roles: pair it with itself, not {other.name}"
        elif side.partner:
            if other.adapter:
                return f"{side.name} was trained against plain weights, not against {other.name}"
            if side.partner != other.weights:
                return (
                    f"{side.name} was trained by `{side.method}` against weights {_short(side.partner)}, "
                    f"but {other.name} holds {_short(other.weights)}; {_remedy(side, other)}"
                )
    return None


def _belong(writer: _Made, reader: _Made) -> bool:
    """Whether a card names the other side (it does not name another one), or both are the same module."""
    if (writer.weights, writer.adapter) == (reader.weights, reader.adapter):
        return True
    return bool(writer.partner or reader.partner)


def _remedy(side: _Made, other: _Made) -> str:
    if side.method == Method.SUN and other.quantized:
        return "train it against this decode module with `heliostat finetune qsun`"
    return "pair it with what it was trained against, or train it again"


def _side(side: Side) -> _Made:
    card = side.trained
    return _Made(
        side.name,
        side.module.weights,
        side.adapter.digest if side.adapter else "",
        card.method if card else "",
        card.partner if card else "",
        side.card is not None and side.card.method is Method.QUANTIZED,
    )


def _version(version: Version) -> _Made:
    return _Made(
        _name(version),
        version.weights,
        version.adapter,
        version.method,
        version.partner,
        version.method == Method.QUANTIZED,
    )


def _name(version: Version) -> str:
    adapter = f" with adapter {_short(version.adapter)}" if version.adapter else ""
    return f"{version.source} (weights {_short(version.weights)}{adapter})"


def _short(digest: str) -> str:
    return digest[:8]
