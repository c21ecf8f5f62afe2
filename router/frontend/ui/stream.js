/** A streamed chat completion: its events, as they come. */

import { errorOf } from "./poll.js";

const BROKEN = "the stream broke off before its end";

/**
 * Yields `{headers}` once, then every event of the stream as an object, up to `[DONE]`.
 * Throws an Error that says why there is no answer, also when it breaks off in the middle.
 */
export async function* chat(body, headers, signal) {
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("no connection to the router");
  });
  if (!response.ok) throw new Error(await errorOf(response));
  yield { headers: response.headers };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    yield event;
  }
  throw new Error(BROKEN);
}

/** The `data:` fields of server-sent events. */
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Error(BROKEN);
    });
    const lines = (rest + (value ?? "")).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    if (done) return;
  }
}
