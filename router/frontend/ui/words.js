/** Figures as people read them. `null` is a figure that nobody knows yet. */

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 1,234, and from ten thousand on 12.3K. */
export function count(value) {
  return value >= 10_000 ? short.format(value) : whole.format(value);
}

/** A rate, with as many digits as it is worth; nothing for none. */
export function rate(value, unit) {
  if (!value) return "";
  if (value > 0 && value < 0.1) return `<0.1 ${unit}`;
  return `${value < 10 ? three.format(Math.round(value * 10) / 10) : count(value)} ${unit}`;
}

/** Milliseconds; 0 stands for none. */
export function ms(value) {
  if (!value) return NONE;
  return value < 10_000 ? `${three.format(value)} ms` : `${three.format(value / 1000)} s`;
}

/** The least and the largest of some milliseconds. */
export function span(values) {
  const [least, most] = [ms(Math.min(...values)), ms(Math.max(...values))];
  return least === most ? least : `${least.replace(/ ms$/, most.endsWith(" ms") ? "" : "$&")} to ${most}`;
}

/** A part of a whole. */
export function percent(part, all) {
  return all > 0 ? `${three.format(Math.round((1000 * part) / all) / 10)} %` : NONE;
}

/** `1 replica`, `2 replicas`. */
export function many(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}
