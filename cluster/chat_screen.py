"""What a chat shows: answers on stdout; in a pipe nothing but them, and all else on stderr."""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.text import Text

from cluster.answer_times import AnswerTimes
from cluster.tame import tame
from heliostat.client import Answer, Piece


class Screen:
    """`interactive`: a person reads and writes here, in a terminal."""

    def __init__(self, interactive: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.interactive = interactive
        self._out = out or sys.stdout
        self._aside = Console(file=self._out if interactive else (err or sys.stderr), highlight=False)
        self._begin()

    def _begin(self) -> None:
        # In a pipe an empty answer is an empty line: the lines there stay those of the questions.
        self._line_open = not self.interactive
        self._thinking = False

    def show(self, piece: Piece) -> None:
        """What is new of an answer. A terminal gets no control characters from a model, and sees it think."""
        if piece.reasoning and self.interactive:
            self._thinking = self._line_open = True
            self._aside.print(Text(tame(piece.reasoning), style="dim italic"), end="", soft_wrap=True)
        if not piece.text:
            return
        if self._thinking:
            self._thinking = False
            self._out.write("\n")
        self._out.write(tame(piece.text) if self.interactive else piece.text)
        self._out.flush()
        self._line_open = not piece.text.endswith("\n")

    def end(self) -> None:
        """The answer is over, whichever way: what comes next begins a line."""
        if self._line_open:
            self._out.write("\n")
            self._out.flush()
        self._begin()

    def note(self, text: str) -> None:
        """About the chat, not of it; names in it are the server's."""
        self._aside.print(Text(tame(text), style="dim"), soft_wrap=True)

    def problem(self, text: str) -> None:
        """What went wrong; the chat goes on."""
        self._aside.print(Text(f"heliostat: {tame(text)}", style="red"), soft_wrap=True)


def figures(answer: Answer, times: AnswerTimes) -> str:
    """How fast an answer came, what its prompt found in caches, and who made it, in one line."""
    usage, served_by = answer.usage, answer.served_by
    counted = usage.output_tokens or times.pieces
    parts = [f"{counted} tokens" if usage.output_tokens else f"{counted} pieces (no token count came)"]
    if rate := times.tokens_per_s(counted):
        parts[0] += f", {rate:.0f}/s"
    if times.ttft_ms is not None:
        parts.append(f"TTFT {times.ttft_ms:.0f} ms")
    if usage.prompt_tokens:
        cached = f"{usage.cached_tokens} cached"
        if usage.cross_model_tokens:
            cached += f" ({usage.cross_model_tokens} by another model)"
        parts.append(f"prompt {usage.prompt_tokens}, {cached}")
    if served_by.decode:
        parts.append(" → ".join(name for name in (served_by.prefill, served_by.decode) if name))
    if answer.finish_reason == "length":
        parts.append("cut off: no more tokens allowed")
    return " · ".join(parts)


def read_line(prompt: str, words: Callable[[], list[str]]) -> str:
    """A line of the person's, with readline's editing and history; Tab completes the `words`.

    Raises EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C.
    """
    with suppress(ImportError):  # not every Python has it; lines can be read all the same
        import readline

        def complete(begun: str, number: int) -> str | None:
            fitting = [word for word in words() if word.startswith(begun)]
            return fitting[number] if number < len(fitting) else None

        readline.set_completer_delims(" ")
        readline.set_completer(complete)
        readline.parse_and_bind("tab: complete")
    return input(tame(prompt))
