"""What is said in a chat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

Parts: TypeAlias = Sequence[Mapping[str, object]]
"""Content in parts, as OpenAI has them: `[{"type": "text", "text": "…"}]`."""


class ToolCall(BaseModel):
    """A call that a model asks for. `arguments` is what it wrote: JSON, if the model did well."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    arguments: str

    def as_dict(self) -> dict[str, object]:
        """As it goes over the wire."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `Message("user", "turn my lamp to 40")`.

    `role` is `system`, `user`, `assistant` or `tool`; a tool's result names the call that it answers in
    `tool_call_id`.
    """

    role: str
    content: str | Parts | None = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    def as_dict(self) -> dict[str, object]:
        """As it goes over the wire; what is empty is left out."""
        message: dict[str, object] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        if self.name:
            message["name"] = self.name
        return message


AnyMessage: TypeAlias = Message | Mapping[str, object]
Messages: TypeAlias = str | AnyMessage | Sequence[AnyMessage]
"""A text is one message of the user's."""


def as_messages(said: Messages) -> tuple[dict[str, object], ...]:
    """As they go over the wire."""
    if isinstance(said, str):
        return (Message("user", said).as_dict(),)
    if isinstance(said, Message | Mapping):
        return (_as_dict(said),)
    return tuple(_as_dict(message) for message in said)


def _as_dict(message: AnyMessage) -> dict[str, object]:
    if isinstance(message, Message):
        return message.as_dict()
    if isinstance(message, Mapping):
        return dict(message)
    raise TypeError(f"{message!r} is no message; give a Message, or a dict as OpenAI has it")
