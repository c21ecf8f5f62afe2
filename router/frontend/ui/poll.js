/** Asks `/status` once a second while somebody can see the page. */

const EVERY_MS = 1000;
const PATIENCE_MS = 8000; // a router waits 5 s for its replicas before it answers without them

/**
 * Polls for ever. `onStatus(status)` gets every answer, `onTrouble(message)` why there was none.
 * `headers()` is asked before every request.
 */
export async function poll(url, headers, onStatus, onTrouble) {
  for (;;) {
    await visible();
    try {
      onStatus(await ask(url, headers()));
    } catch (error) {
      onTrouble(error.message);
    }
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

async function ask(url, headers) {
  let response;
  try {
    response = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    throw new Error("no connection to the router");
  }
  if (!response.ok) throw new Error(await errorOf(response));
  try {
    return await response.json();
  } catch {
    throw new Error("the answer to /status broke off, or is not JSON");
  }
}

/** What an answer that is no success says: OpenAI's error object, or else its status. */
export async function errorOf(response) {
  const text = await response.text().catch(() => "");
  let said = text.length < 300 && !text.includes("<") ? text.trim() : "";
  try {
    said = JSON.parse(text).error?.message ?? said;
  } catch {
    // not JSON: a proxy's own page
  }
  const wait = response.headers.get("retry-after");
  const status = `${response.status} ${response.statusText}`.trim();
  return [status, said].filter(Boolean).join(": ") + (wait ? ` (try again in ${wait} s)` : "");
}

function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    document.addEventListener("visibilitychange", function look() {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      done();
    });
  });
}
