// How numbers and times are written. Times are UTC seconds and shown as UTC, days as dates in their zone.

import { byCalendar } from "./data/intervals.js";

const MIN_DECIMALS = 2;
const MAX_DECIMALS = 8;
const USUAL_SHARE = 0.9;
const WEEKDAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
const small = new Intl.NumberFormat("en-US", { maximumFractionDigits: MAX_DECIMALS });

export const count = (n) => whole.format(n);

export const volume = (v) => (Math.abs(v) >= 10_000 ? compact.format(v) : small.format(v));

export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

function decimalsOf(number) {
  const text = String(number);
  const dot = text.indexOf(".");
  return text.includes("e-") ? MAX_DECIMALS : dot < 0 ? 0 : text.length - dot - 1;
}

/** The decimals that nearly all of the prices do with, at least 2 and at most 8: for an axis. */
export function decimals(prices) {
  const sorted = prices.map(decimalsOf).sort((a, b) => a - b);
  const usual = sorted[Math.floor((sorted.length - 1) * USUAL_SHARE)] ?? 0;
  return Math.min(MAX_DECIMALS, Math.max(MIN_DECIMALS, usual));
}

/** A price in full, with at least that many decimals. */
export const price = (p, places) =>
  p.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: MAX_DECIMALS });

export function percent(ratio) {
  const sign = ratio > 0 ? "+" : ratio < 0 ? "−" : "";
  return `${sign}${Math.abs(ratio * 100).toFixed(2)} %`;
}

export function bytes(n) {
  const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log10(Math.max(n, 1)) / 3));
  const value = n / 1000 ** power;
  return `${power === 0 || value >= 100 ? whole.format(value) : value.toPrecision(3)} ${BYTE_UNITS[power]}`;
}

const iso = (time) => new Date(time * 1000).toISOString();

/** `2013-03-01` in UTC. */
export const date = (time) => iso(time).split("T")[0];

/** `2013-03-01 14:30` in UTC, with seconds where there are any. */
export function moment(time) {
  const [day, clock] = iso(Math.floor(time)).split("T");
  return `${day} ${clock.slice(0, Math.floor(time) % 60 ? 8 : 5)}`;
}

const calendars = new Map();

function calendarOf(zone) {
  if (!calendars.has(zone)) {
    const parts = { timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit" };
    calendars.set(zone, new Intl.DateTimeFormat("sv-SE", parts));
  }
  return calendars.get(zone);
}

/** `2013-03-01` in a zone. */
export const dateIn = (zone, time) => (zone === "UTC" ? date(time) : calendarOf(zone).format(time * 1000));

/** Midnight UTC of the date in a zone: where an axis that knows only UTC has to put a day. */
export const dayIn = (zone, time) => Date.parse(dateIn(zone, time)) / 1000;

/** When a bar opens: a date in its zone for days and longer, else a moment in UTC. */
export const opening = (time, interval, zone) => (byCalendar(interval) ? dateIn(zone, time) : moment(time));

/** The weekday of a moment in UTC. */
export const weekday = (time) => WEEKDAYS[new Date(time * 1000).getUTCDay()];

/** `2013-03-01T14:30Z`, for addresses. */
export const address = (time) => iso(Math.round(time)).replace(/(:00)?\.000Z$/, "Z");

/** UTC seconds of what `address` wrote (or any RFC 3339 or date); null when it is none. */
export function parseAddress(value) {
  const time = Date.parse(value) / 1000;
  return Number.isFinite(time) ? time : null;
}
