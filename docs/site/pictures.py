"""The pictures of docs/concepts.md, as code: the ways of sharing, and a handoff."""

from dataclasses import dataclass

from docs.site.drawing import Board

WIDTH = 900
MODELS = ("math", "code", "law")
"""Three fine-tunes of one base, each in a colour of its own."""

MODEL_X, PREFILL_X, BAND_X, DECODE_X = 40, 240, 520, 650
MODEL_WIDTH, POOL_WIDTH, BAND_WIDTH = 110, 210, 60
TOP, ROW, BOX = 92, 72, 54


@dataclass(frozen=True)
class Pool:
    """A pool in a picture: where it stands in rows from the top, which models use it, and what is in it."""

    row: float
    models: tuple[int, ...]
    title: str
    lines: tuple[str, ...]
    rows: float = 1
    """How many rows it is high."""

    @property
    def top(self) -> float:
        return TOP + self.row * ROW

    @property
    def height(self) -> float:
        return BOX + (self.rows - 1) * ROW

    def entry(self, model: int) -> float:
        """Where a model's arrow meets it."""
        return self.top + self.height * (self.models.index(model) + 1) / (len(self.models) + 1)


@dataclass(frozen=True)
class Sharing:
    """One way of sharing, as a picture."""

    title: str
    description: str
    prefill: tuple[Pool, ...]
    decode: tuple[Pool, ...]
    notes: tuple[str, str]
    """Below the picture: what is shared, and what it costs."""

    def draw(self) -> str:
        """As SVG."""
        board = Board(WIDTH, 372, self.title, self.description)
        _heads(board)
        board.rect(BAND_X, 78, BAND_WIDTH, 222, "band", "rim", radius=10)
        for model, name in enumerate(MODELS):
            colour, middle = f"c{model}", TOP + model * ROW + BOX / 2
            prefill = next(pool for pool in self.prefill if model in pool.models)
            decode = next(pool for pool in self.decode if model in pool.models)
            board.arrow(MODEL_X + MODEL_WIDTH, middle, PREFILL_X, prefill.entry(model), colour)
            board.arrow(PREFILL_X + POOL_WIDTH, prefill.entry(model), DECODE_X, decode.entry(model), colour)
            board.pill(MODEL_X, middle - 18, MODEL_WIDTH, name, colour)
        for x, pools in ((PREFILL_X, self.prefill), (DECODE_X, self.decode)):
            for pool in pools:
                board.box(x, pool.top, POOL_WIDTH, pool.height, pool.title, *pool.lines)
        board.text(MODEL_X, 328, self.notes[0], anchor="start")
        board.text(MODEL_X, 350, self.notes[1], "muted", anchor="start")
        return board.svg()


def _heads(board: Board) -> None:
    heads = (
        (MODEL_X + MODEL_WIDTH / 2, "models", "what a client names"),
        (PREFILL_X + POOL_WIDTH / 2, "prefill pools", "prompt to KV cache"),
        (BAND_X + BAND_WIDTH / 2, "handoff", "KV under a ticket"),
        (DECODE_X + POOL_WIDTH / 2, "decode pools", "KV cache to tokens"),
    )
    for x, head, below in heads:
        board.text(x, 40, head, size=14, weight=700)
        board.text(x, 58, below, "muted", size=12)


def _each(role: str, weights: str) -> tuple[Pool, ...]:
    """One pool for each model."""
    return tuple(
        Pool(row, (row,), f"{role}.{name}", (weights.format(name),)) for row, name in enumerate(MODELS)
    )


ALL = (0, 1, 2)

DEDICATED = Sharing(
    "Nothing shared",
    "Three models, each with a prefill pool and a decode pool of its own.",
    _each("prefill", "weights: {}"),
    _each("decode", "weights: {}"),
    (
        "Nothing is shared: six pools for three models, each sized for the peak of its own model.",
        "The baseline of every comparison. It takes any fine-tune: prefill and decode hold the same weights.",
    ),
)

SUN = Sharing(
    "SUN: one decode pool for all models",
    "Three models, each with a prefill pool of its own. All lead to one decode pool, which holds the base.",
    _each("prefill", "weights: {}, trained"),
    (Pool(0.5, ALL, "decode.base", ("weights: base, frozen", "one batch for all models"), 2),),
    (
        "The decode pool is shared: a step makes tokens for all models at once, so its batches are full.",
        "Each prefill module is trained to write KV that leads the frozen base to its answers.",
    ),
)

PREFILLSHARE = Sharing(
    "PrefillShare: one prefill pool for all models",
    "Three models lead to one prefill pool, which holds the base. Each has a decode pool of its own.",
    (Pool(0.5, ALL, "prefill.base", ("weights: base, frozen", "one KV cache per prompt"), 2),),
    _each("decode", "weights: {}, trained"),
    (
        "The prompt's KV is shared: three models asked about one context cost one prefill.",
        "Each decode module is trained to go on from KV that the frozen base wrote.",
    ),
)

ICARUS = Sharing(
    "ICaRus: one KV cache for everything",
    "Three models lead to one prefill pool and one decode pool, which holds the base and three adapters.",
    (Pool(0.5, ALL, "prefill.base", ("weights: base, frozen", "one KV cache per prompt"), 2),),
    (
        Pool(
            0.5,
            ALL,
            "decode.readers",
            ("base writes all KV", "adapters read: math, code, law", "one cache, one batch"),
            2,
        ),
    ),
    (
        "All KV is shared, that of generated tokens too: the next turn starts from it, whichever model asks.",
        "Each model is an adapter that leaves keys and values alone; a token runs as base and adapted.",
    ),
)


def handoff() -> str:
    """One request's way through router, prefill replica and decode replica; who writes which KV."""
    board = Board(
        WIDTH,
        470,
        "A handoff",
        "The router sends all prompt tokens but the last to a prefill replica, gets a ticket, and sends it "
        "to a decode replica, which reads the KV, runs the last prompt token and samples every output token.",
    )
    lanes = ((150, "router"), (450, "prefill replica"), (750, "decode replica"))
    for x, name in lanes:
        board.rect(x - 0.8, 66, 1.6, 254, "edge", radius=0)
        board.rect(x - 85, 28, 170, 38, "box", "line", radius=8)
        board.text(x, 52, name, size=15, weight=600)
    router, prefill, decode = (x for x, _ in lanes)
    _message(board, router, prefill, 104, "1  the prompt, all but its last token", "c0")
    board.rect(prefill - 62, 120, 124, 32, "band", "rim", radius=6)
    board.text(prefill, 141, "KV, in memory", "ink", size=13, weight=600)
    _message(board, prefill, router, 184, "2  ticket: which KV, where, until when", "c3")
    _message(board, router, decode, 224, "3  the whole prompt, and the ticket", "c1")
    _message(board, prefill, decode, 264, "4  KV, into its own cache", "rim")
    _message(board, decode, router, 304, "5  output tokens, as they are sampled", "c1")
    _tokens(board)
    return board.svg()


def _message(board: Board, x: float, to_x: float, y: float, text: str, colour: str) -> None:
    gap = 4 if to_x > x else -4
    board.arrow(x + gap, y, to_x - gap, y, colour, dashed=colour == "rim")
    width = 7 * len(text) + 12
    middle = (x + to_x) / 2
    if abs(to_x - x) > 400:  # across the lane between: the words stand before it
        middle = (x + 450) / 2 if to_x > x else (450 + to_x) / 2
    board.rect(middle - width / 2, y - 22, width, 17, "ground", radius=3)
    board.text(middle, y - 9, text, size=12.5)


def _tokens(board: Board) -> None:
    """The sequence, each token in the colour of the module that writes its KV."""
    board.text(40, 352, "Who writes the KV of which token", size=14, weight=700, anchor="start")
    cells = [
        ("x₁", "c0"),
        ("x₂", "c0"),
        ("…", "c0"),
        ("xₙ₋₁", "c0"),
        ("xₙ", "c1"),
        ("y₁", "c1"),
        ("y₂", "c1"),
    ]
    for number, (name, colour) in enumerate([*cells, ("…", "c1")]):
        x = 40 + number * 102 + (14 if colour == "c1" else 0)
        board.rect(x, 368, 94, 34, colour, radius=6)
        board.text(x + 47, 390, name, "pill", size=15, weight=600)
    board.text(
        40, 426, "the prefill module: all of the prompt but its last token", "c0", anchor="start", weight=600
    )
    board.text(462, 426, "the decode module: from the last prompt token on", "c1", anchor="start", weight=600)
    board.text(
        40,
        450,
        "The decode module never writes the first part, not even after a failure: a prefill replica does.",
        "muted",
        anchor="start",
    )


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    ways = {"dedicated": DEDICATED, "sun": SUN, "prefillshare": PREFILLSHARE, "icarus": ICARUS}
    return {f"{name}.svg": way.draw() for name, way in ways.items()} | {"handoff.svg": handoff()}
