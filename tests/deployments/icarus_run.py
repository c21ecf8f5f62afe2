"""One engine in one process, for `test_icarus_engine.py`: a job on stdin, its tokens on stdout.

The job: `engine` (arguments of vLLM's LLM), `adapters` (name: path), `steps`: lists of requests that run as
one batch, each (token ids, adapter or null, number of tokens).
"""

import json
import sys
import time

from vllm import LLM, SamplingParams
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest

from deployments import vllm_lora_cpu
from deployments.icarus.registration import register_icarus


def main() -> None:
    job = json.load(sys.stdin)
    vllm_lora_cpu.install()
    register_icarus()
    llm = LLM(**job["engine"])
    adapters = {
        name: LoRARequest(name, number, path)
        for number, (name, path) in enumerate(job["adapters"].items(), start=1)
    }
    steps = []
    for step in job["steps"]:
        began = time.perf_counter()
        outputs = llm.generate(
            [tokens_input(token_ids) for token_ids, _, _ in step],
            [
                SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=count, detokenize=False)
                for _, _, count in step
            ],
            lora_request=[adapters.get(name) for _, name, _ in step],
            use_tqdm=False,
        )
        steps.append(
            {
                "tokens": [list(output.outputs[0].token_ids) for output in outputs],
                "cached": [output.num_cached_tokens for output in outputs],
                "seconds": time.perf_counter() - began,
            }
        )
    print("RESULT " + json.dumps(steps))


def _greedy(count: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=count, detokenize=False)


if __name__ == "__main__":
    main()
