"""How models write tool calls: as one of vLLM's parsers reads them, or only where they must (vLLM 0.32)."""

from collections.abc import Sequence

from vllm.entrypoints.generate.base.protocol import DeltaMessage, ExtractedToolCallInformation
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.tool_parsers import ToolParser, ToolParserManager

from heliostat.errors import HeliostatError
from heliostat.findings import did_you_mean

JSON = "json"
"""The parser of families that nothing is known of."""


class JsonToolParser(ToolParser):  # type: ignore[misc]
    """Guided decoding forces required and named calls into JSON, whatever the model was trained on.

    Nothing is read out of an answer that was free to be text, so `tool_choice: auto` means nothing here.
    """

    def extract_tool_calls(
        self, model_output: str, request: ChatCompletionRequest
    ) -> ExtractedToolCallInformation:
        return ExtractedToolCallInformation(tools_called=False, tool_calls=[], content=model_output)

    def extract_tool_calls_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
        request: ChatCompletionRequest,
    ) -> DeltaMessage | None:
        return DeltaMessage(content=delta_text)


def registered(name: str) -> str:
    """The name, once vLLM's layer can be given it. Raises HeliostatError where there is no such parser."""
    if JSON not in ToolParserManager.list_registered():
        ToolParserManager.register_module(JSON, module=JsonToolParser)
    known = ToolParserManager.list_registered()
    if name not in known:
        remedy = did_you_mean(name, known, "choose from")
        raise HeliostatError(f"router.tool_parser: vLLM has no tool parser {name!r}; {remedy}")
    return name
