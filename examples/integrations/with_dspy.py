"""DSPy over Heliostat: four specialists over one context, a stream, a schema and a tool.

    pip install dspy
    python examples/integrations/with_dspy.py --base-url http://127.0.0.1:8000/v1

What it asks is in `house.py`.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator

# Before the import: DSPy would fetch a list of models and prices from GitHub.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy
from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider
from house import CONTEXT, ORDER, QUESTIONS, SHORT, WARMTH, Command, Room, base_url, sensor

# Answers would be kept in the home folder, and given again without asking.
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


# docs: start
def connect(base_url: str) -> None:
    """From here on, `dspy.LM("heliostat/NAME")` is a model of the cluster."""
    # One session for all that is asked over one context.
    session = ("x-heliostat-session", uuid.uuid4().hex)
    headers = (session, *SHORT.items())
    access = AccessPolicy(provider="heliostat", base_url=base_url, headers=headers)
    provider = ProviderDefinition.chat(access, compat=OpenAIChatCompat(), placeholder_key="none")
    register_provider(provider, supports=ModelSupport(response_schema=True))


class Plain(dspy.Adapter):
    """The signature's instructions as system message, its input as user message, the answer as it comes.

    DSPy's own adapters explain each field in the prompt, which a tiny model cannot read.
    """

    def format(self, signature, demos, inputs):
        asked = "\n".join(str(inputs[name]) for name in signature.input_fields if name in inputs)
        return [{"role": "system", "content": signature.instructions}, {"role": "user", "content": asked}]

    def parse(self, signature, completion):
        return dict.fromkeys(signature.output_fields, completion)


class Answer(dspy.Signature):
    __doc__ = CONTEXT
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def specialist(model: str, signature: type[dspy.Signature]) -> dspy.Predict:
    predict = dspy.Predict(signature)
    predict.set_lm(dspy.LM(f"heliostat/{model}", temperature=0, engine="lm15"))
    return predict


async def ask(model: str, question: str) -> str:
    with dspy.context(adapter=Plain()):
        return (await specialist(model, Answer).acall(question=question)).answer


class Order(dspy.Signature):
    __doc__ = CONTEXT
    order: str = dspy.InputField()
    command: Command = dspy.OutputField()


async def command(order: str) -> Command:
    # The JSON adapter asks for its fields by response_format, guided.
    with dspy.context(adapter=dspy.JSONAdapter()):
        return (await specialist("home", Order).acall(order=order)).command


class Look(dspy.Signature):
    __doc__ = CONTEXT
    question: str = dspy.InputField()
    room: Room = dspy.OutputField()


async def with_sensor(question: str) -> str:
    # As a field, the tool's argument is guided; DSPy leaves it to the model whether it calls a tool at all.
    with dspy.context(adapter=dspy.JSONAdapter()):
        look = await specialist("base", Look).acall(question=question)
    return await ask("base", sensor(look.room))


# docs: end


async def ask_all(questions: dict[str, str]) -> dict[str, str]:
    answers = await asyncio.gather(*(ask(*each) for each in questions.items()))
    return dict(zip(questions, answers, strict=True))


async def stream(model: str, question: str) -> AsyncIterator[str]:
    with dspy.context(adapter=Plain()):
        async for each in dspy.streamify(specialist(model, Answer))(question=question):
            if not isinstance(each, dspy.Prediction):  # which comes last, whole
                yield each.choices[0].delta.content or ""


async def main() -> None:
    connect(base_url(__doc__))
    for model, answer in (await ask_all(QUESTIONS)).items():
        print(f"{model}: {answer}")
    print("streamed: ", end="")
    async for piece in stream("spell", QUESTIONS["spell"]):
        print(piece, end="", flush=True)
    print(f"\nstructured: {await command(ORDER)!r}")
    print(f"with its reading: {await with_sensor(WARMTH)}")


if __name__ == "__main__":
    asyncio.run(main())
