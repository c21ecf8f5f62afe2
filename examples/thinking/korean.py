"""Korean prompts, streamed: no piece ever holds half a syllable.

A syllable is three bytes of UTF-8. Where a tokenizer has no token for it, it is three tokens, one a byte, and
they may come at different times. The server keeps bytes back until a syllable is whole; the client decodes
what comes over the wire the same way. This script looks at every piece, and at the same answer unstreamed.

    python examples/thinking/korean.py --base-url http://127.0.0.1:8000
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from heliostat import AsyncClient, AsyncContext
from heliostat.errors import HeliostatError, UnknownModelError

HERE = Path(__file__).parent
BROKEN = "\N{REPLACEMENT CHARACTER}"
QUESTIONS = ("전등은 얼마입니까?", "펌프는 얼마입니까?", "소파는 얼마입니까?", "열쇠는 얼마입니까?")


def broken_pieces(pieces: Sequence[str]) -> list[str]:
    """Those that stand for bytes that are no text."""
    return [piece for piece in pieces if BROKEN in piece]


async def ask(ctx: AsyncContext, model: str, question: str) -> bool:
    """Whether the streamed answer is whole, and the same as the one in one part."""
    async with ctx.stream_ask(model, question, temperature=0, max_tokens=64) as stream:
        pieces = [piece.text async for piece in stream if piece.text]
        tokens = stream.answer.usage.output_tokens
    whole = await ctx.ask(model, question, temperature=0, max_tokens=64)
    broken, same = broken_pieces(pieces), "".join(pieces) == whole.text
    print(f"{question} {'|'.join(pieces)}")
    print(f"  {tokens} tokens, {len(pieces)} pieces, {len(broken)} broken; ", end="")
    print("the same unstreamed" if same else f"unstreamed: {whole.text}")
    return not broken and same


async def run(base_url: str, model: str, document: str) -> bool:
    """Whether all answers were whole."""
    async with AsyncClient(base_url) as client, client.context(documents=[document]) as ctx:
        return all([await ask(ctx, model, question) for question in QUESTIONS])


def main() -> None:
    """Parse the command line and run; status 1 if a character broke."""
    parser = argparse.ArgumentParser(description="Streams Korean answers and looks at every piece.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="korean")
    parser.add_argument("--document", type=Path, default=HERE / "house_ko.txt")
    told = parser.parse_args()
    try:
        whole = asyncio.run(run(told.base_url, told.model, told.document.read_text().strip()))
    except UnknownModelError as error:
        sys.exit(f"{error} (name yours with --model, or serve examples/agents/cluster.yaml)")
    except (HeliostatError, OSError, ValueError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if whole else "a character was broken")


if __name__ == "__main__":
    main()
