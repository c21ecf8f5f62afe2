"""What a line of a chat means: a question, or a command that begins with a slash."""

from dataclasses import dataclass

from heliostat.errors import HeliostatError
from heliostat.findings import did_you_mean

HELP = """\
/model NAME  ask this model from now on, over the same conversation
/models      what the server serves
/reset       forget the conversation
/help        this
/quit        end, as Ctrl-D and Ctrl-C do here; during an answer Ctrl-C stops it
//text       a question that begins with one slash"""

COMMANDS = ("/model", "/models", "/reset", "/help", "/quit")


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Do:
    """A command, without its slash, and what follows it."""

    name: str
    argument: str = ""


def read(line: str) -> Ask | Do | None:
    """None: nothing was said. Raises HeliostatError for a command that is none."""
    said = line.strip()
    if not said:
        return None
    if said.startswith("//"):
        return Ask(said[1:])
    if not said.startswith("/"):
        return Ask(said)
    name, _, argument = said.partition(" ")
    if name not in COMMANDS:
        raise HeliostatError(f"there is no {name}; {did_you_mean(name, COMMANDS, 'commands')}")
    if name == "/model" and not argument:
        raise HeliostatError("/model wants a name; /models lists them")
    return Do(name[1:], argument.strip())
