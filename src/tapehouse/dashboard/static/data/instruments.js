// What is known of the symbols: here, in which zone their days begin.

const UTC = "UTC";

function matcher({ pattern, timezone }) {
  const parts = pattern.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return { pattern, expression: new RegExp(`^${parts.join(".*")}$`, "s"), timezone };
}

/** The answer of `/v1/instruments`. A pattern is a symbol, or one with `*`: the symbol itself counts, else the longest match. */
export class Instruments {
  #zones;
  #wild;

  constructor(instruments) {
    this.#zones = new Map(instruments.map(({ pattern, timezone }) => [pattern, timezone]));
    this.#wild = instruments.map(matcher).sort((a, b) => b.pattern.length - a.pattern.length);
  }

  /** The IANA zone in which a symbol's days begin. */
  zoneOf(symbol) {
    return this.#zones.get(symbol) ?? this.#wild.find(({ expression }) => expression.test(symbol))?.timezone ?? UTC;
  }
}
