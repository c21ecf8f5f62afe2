/** The box to try a prompt: sends it, streams the answer, and says who answered and how fast. */

import { el, say } from "./dom.js";
import { chat } from "./stream.js";
import { count, ms, rate } from "./words.js";

export class AskBox {
  #running = null;

  /** `onServed(names)` is told which replicas answered; none when a new request begins. */
  constructor(form, answer, onServed) {
    this.form = form;
    this.fields = form.elements;
    this.send = form.querySelector("[type=submit]");
    this.box = answer;
    this.error = answer.querySelector(".error");
    this.output = answer.querySelector("output");
    this.facts = answer.querySelector(".facts");
    this.onServed = onServed;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#running?.abort());
    this.fields.stop.addEventListener("click", () => this.#running?.abort());
  }

  /** What every request of this page carries. */
  headers() {
    const key = this.fields.key.value.trim();
    return key ? { authorization: `Bearer ${key}` } : {};
  }

  /** The models that can be chosen; the chosen one stays, as long as it is there. */
  offer(names) {
    const select = this.fields.model;
    if (names.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
    if (names.includes(chosen)) select.value = chosen;
  }

  /** Choose a model and go to its prompt. */
  choose(name) {
    this.fields.model.value = name;
    this.fields.prompt.focus();
  }

  async #send() {
    if (this.#running) return;
    const running = (this.#running = new AbortController());
    this.#begin();
    const told = new Told();
    try {
      for await (const event of chat(this.#body(), this.#requestHeaders(), running.signal)) {
        told.take(event, performance.now());
        if (event.headers) this.onServed([told.prefill, told.decode].filter(Boolean));
        this.#show(told);
      }
      told.end = told.reason === "length" ? "limit of tokens" : "whole";
    } catch (error) {
      told.end = running.signal.aborted ? "stopped" : "broken off";
      if (!running.signal.aborted) this.#fail(error.message);
    } finally {
      this.#running = null;
      this.send.disabled = false;
      this.fields.stop.disabled = true;
      this.#show(told);
    }
  }

  #begin() {
    this.onServed([]);
    this.send.disabled = true;
    this.fields.stop.disabled = false;
    this.box.hidden = false;
    this.error.hidden = true;
    this.output.replaceChildren();
    this.facts.replaceChildren();
  }

  #body() {
    const { model, prompt, max_tokens, temperature } = this.fields;
    const body = { model: model.value, messages: [{ role: "user", content: prompt.value }] };
    if (max_tokens.value) body.max_tokens = max_tokens.valueAsNumber;
    if (temperature.value) body.temperature = temperature.valueAsNumber;
    return body;
  }

  #requestHeaders() {
    const deadline = this.fields.deadline.value.trim();
    return { ...this.headers(), ...(deadline ? { "x-heliostat-deadline": deadline } : {}) };
  }

  #fail(message) {
    say(this.error, message);
    this.error.hidden = false;
  }

  #show(told) {
    // Only what is new is added: a long answer is not laid out again for every token.
    this.output.append(told.fresh());
    this.facts.replaceChildren(
      ...told.facts().map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
    );
  }
}

/** What is known of one answer so far, with the browser's clock, ms. */
class Told {
  prefill = null;
  decode = null;
  end = "";
  reason = "";
  #began = performance.now();
  #first = 0;
  #last = 0;
  #pieces = 0;
  #tokens = 0;
  #fresh = "";

  take(event, nowMs) {
    if (event.headers) {
      this.prefill = event.headers.get("x-heliostat-prefill");
      this.decode = event.headers.get("x-heliostat-decode");
      return;
    }
    this.#tokens = event.usage?.completion_tokens ?? this.#tokens;
    const [choice] = event.choices ?? [];
    if (!choice) return;
    this.reason = choice.finish_reason ?? this.reason;
    const text = choice.delta?.content ?? "";
    if (!text) return;
    this.#first ||= nowMs;
    this.#last = nowMs;
    this.#pieces += 1;
    this.#fresh += text;
  }

  /** Text that came since the last call. */
  fresh() {
    const text = this.#fresh;
    this.#fresh = "";
    return text;
  }

  facts() {
    const tokens = this.#tokens || this.#pieces;
    const tokensPerS = tokens > 1 && this.#last > this.#first ? ((tokens - 1) * 1000) / (this.#last - this.#first) : null;
    return [
      ["prefill", this.prefill ?? ""],
      ["decode", this.decode ?? ""],
      ["TTFT", this.#first ? ms(this.#first - this.#began) : ""],
      ["tokens", tokens ? count(tokens) : ""],
      ["speed", rate(tokensPerS, "tok/s")],
      ["end", this.end],
    ].filter(([, value]) => value);
  }
}
