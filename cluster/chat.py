"""`heliostat chat`: a conversation in a terminal, or over a pipe, a line a question."""

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Iterator

from cluster.chat_commands import COMMANDS, HELP, Ask, Do, read
from cluster.chat_conversation import Conversation
from cluster.chat_screen import Screen, figures, read_line
from cluster.served import check_models, served_models
from heliostat.client import AsyncClient, ChatOptions
from heliostat.errors import HeliostatError


def chat_command(args: argparse.Namespace) -> int:
    """Exit status 1 if a line from a pipe got no answer. Raises HeliostatError when nobody answers."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    client = AsyncClient(args.url)
    # One loop for all answers. It stands still while a line is read: `input` and Ctrl-C then work as ever.
    with asyncio.Runner() as runner:
        try:
            return Chat(args, client, runner, Screen(interactive)).run()
        except BrokenPipeError:
            # Nobody reads on; what is not yet flushed goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        finally:
            runner.run(client.close())


class Chat:
    """Reads lines until there are no more, and does what they say."""

    def __init__(
        self, args: argparse.Namespace, client: AsyncClient, runner: asyncio.Runner, screen: Screen
    ) -> None:
        self._url, self._client, self._runner, self._screen = args.url, client, runner, screen
        self._served = runner.run(served_models(client, args.url))
        (model,) = check_models([args.model] if args.model else [], self._served, args.url)
        self._conversation = Conversation(
            client, model, system=args.system, session=args.session, options=_options(args)
        )
        self._failed = False

    def run(self) -> int:
        """Until `/quit`, or the end of what comes in."""
        if self._screen.interactive:
            self._screen.note(f"{self._conversation.model} at {self._url}; /help says more, Ctrl-D ends")
        for line in self._lines():
            try:
                match read(line):
                    case Ask(text):
                        self._ask(text)
                    case Do("quit"):
                        break
                    case Do(name, argument):
                        self._do(name, argument)
            except HeliostatError as error:
                self._failed = True
                self._screen.problem(str(error))
        return 1 if self._failed and not self._screen.interactive else 0

    def _lines(self) -> Iterator[str]:
        if not self._screen.interactive:
            yield from sys.stdin
            return
        while True:
            try:
                yield read_line(f"{self._conversation.model}> ", lambda: [*COMMANDS, *self._served])
            except (EOFError, KeyboardInterrupt):
                print()
                return

    def _ask(self, text: str) -> None:
        try:
            told = self._runner.run(self._conversation.ask(text, self._screen.show))
        except KeyboardInterrupt:
            self._screen.end()
            if not self._screen.interactive:
                raise
            self._screen.note("stopped; what has come is part of the conversation")
        except HeliostatError:
            self._screen.end()
            raise
        else:
            self._screen.end()
            self._screen.note(figures(*told))

    def _do(self, name: str, argument: str) -> None:
        if name == "help":
            self._screen.note(HELP)
        elif name == "reset":
            self._conversation.reset()
            self._screen.note("forgotten")
        else:
            try:
                self._served = self._runner.run(served_models(self._client, self._url))
            except KeyboardInterrupt:
                if not self._screen.interactive:
                    raise
                self._screen.note("stopped; the conversation is as it was")
                return
            if name == "model":
                (self._conversation.model,) = check_models([argument], self._served, self._url)
            self._screen.note("  ".join(self._marked(each) for each in self._served or [argument]))

    def _marked(self, model: str) -> str:
        return f"[{model}]" if model == self._conversation.model else model


def _options(args: argparse.Namespace) -> ChatOptions:
    options = ChatOptions()
    if args.temperature is not None:
        options["temperature"] = args.temperature
    if args.max_tokens is not None:
        options["max_tokens"] = args.max_tokens
    if args.extra_body:
        options["extra_body"] = args.extra_body
    return options
