"""Models in `/status` have what admission counts while requests run."""

from dataclasses import dataclass

from heliostat.spec import Family, Model, Pool, Spec
from heliostat.status import LiveCounts
from router.accounts import Accounts
from router.admission import ModelCounts, Reason
from router.live_counts import with_live

SPEC = Spec(
    family=Family(base="b"),
    prefill={"p": Pool(weights="w")},
    decode={"d": Pool(weights="w")},
    models={name: Model(prefill="p", decode="d") for name in ("busy", "idle")},
)


@dataclass
class Door:
    """Admission that has counted for one model."""

    busy: ModelCounts

    def counts(self, model: str) -> ModelCounts:
        return self.busy if model == "busy" else ModelCounts()


def test_every_model_gets_its_own_live_counts() -> None:
    counts = ModelCounts(queued=1, running=2, admitted=7, prompt_tokens=70, output_tokens=9)
    counts.refused[Reason.DEADLINE] = 3
    counts.refused[Reason.QUEUE_FULL] = 4
    before = Accounts(SPEC).to_status()
    busy, idle = with_live(before, Door(counts))
    assert busy.live == LiveCounts(
        queued=1, running=2, admitted=7, refused=7, prompt_tokens=70, output_tokens=9
    )
    assert idle.live == LiveCounts()
    assert tuple(model.model_copy(update={"live": LiveCounts()}) for model in (busy, idle)) == before
