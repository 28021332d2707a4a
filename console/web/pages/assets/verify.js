// Recomputes the hashes of a run's events from their facts: docs/reference/encoding.md in another
// language, with the browser's own SHA-256. Nothing that the server says of them is believed.
"use strict";

const FIELDS = [
  ["project_id", "text"],
  ["run_id", "plain"],
  ["version", "plain"],
  ["recorded_at", "time"],
  ["type", "text"],
  ["schema_version", "plain"],
  ["actor", "text"],
  ["state", "text"],
  ["name", "text"],
  ["kind", "text"],
  ["priority", "plain"],
  ["max_attempts", "plain"],
  ["deadline", "time"],
  ["tags", "list"],
  ["attempt", "plain"],
  ["worker_id", "text"],
  ["token", "plain"],
  ["lease_until", "time"],
  ["available_at", "time"],
  ["late_ms", "plain"],
  ["wait_until", "time"],
  ["wait_outcome", "text"],
  ["cost_usd", "money"],
  ["step_count", "plain"],
  ["error_code", "text"],
  ["output_sha256", "plain"],
  ["compensates", "plain"],
  ["key", "text"],
  ["payload_hash", "plain"],
  ["credential", "text"],
  ["role", "text"],
  ["other_person", "plain"],
  ["shown_sha256", "text"],
  ["request", "plain"],
  ["meaning", "text"],
  ["based_on", "plain"],
  ["approvals", "plain"],
  ["approved", "plain"],
];
const EPOCH = Date.UTC(2000, 0, 1);
const INFINITE = {infinity: "7fffffffffffffff", "-infinity": "8000000000000000"};
const utf8 = new TextEncoder();

const hex = (bytes) => [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
const bytesOf = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const joined = (...parts) => {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};
const sha256 = async (bytes) => hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));

const time = (value) => {
  if (INFINITE[value]) return INFINITE[value];
  const [, seconds, fraction] = /^(.*?:\d\d)(?:\.(\d+))?\+00:00$/.exec(value);
  const whole =
    BigInt(Date.parse(`${seconds}Z`) - EPOCH) * 1000n + BigInt((fraction ?? "").padEnd(6, "0"));
  return BigInt.asUintN(64, whole).toString(16).padStart(16, "0");
};
const money = (value) => {
  const [whole, fraction = ""] = value.split(".");
  return `${whole}.${fraction.padEnd(6, "0")}`;
};
const WRITTEN = {
  text: (value) => `${[...value].length}:${value}`,
  plain: String,
  list: JSON.stringify,
  time,
  money,
};

export const eventHash = async (previous, event) => {
  let text = `runfold/event/v1\nprevious:${previous}\n`;
  for (const [name, how] of FIELDS) {
    const value = event[name];
    if (value !== null && value !== undefined) text += `${name}:${WRITTEN[how](value)}\n`;
  }
  return sha256(joined(Uint8Array.of(0), utf8.encode(text)));
};

export const payloadHash = async (salt, body) =>
  sha256(joined(utf8.encode("runfold/payload/v1\n"), bytesOf(salt), utf8.encode(body)));

const numberOf = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

const wrong = (text) => ({ok: false, text});

// Checks a run, or one of its events with the one before it. `say` is told how far it is.
export const verify = async (address, event, say) => {
  if (!crypto.subtle) return wrong("this browser hashes on https pages and on localhost only");
  let after = event ? Math.max(event - 2, 0) : 0,
    previous = "",
    events = 0,
    contents = 0,
    unseen = 0;
  try {
    for (let more = true; more;) {
      const answer = await fetch(`${address}?from=${after}&limit=${event ? event - after : 1000}`);
      if (!answer.ok) return wrong(`the server answered ${answer.status}`);
      const page = await answer.json();
      if (event && page.events.at(-1)?.version !== event)
        return wrong(`there is no event #${event}`);
      for (const each of page.events) {
        if (each.version !== after + 1)
          return wrong(`#${each.version} follows #${after}: events are missing`);
        after = each.version;
        if (event && each.version < event) {
          previous = each.hash;
          continue;
        }
        if ((await eventHash(previous, each)) !== each.hash)
          return wrong(`the hash of #${each.version} is not that of its facts`);
        previous = each.hash;
        events += 1;
        if (each.body !== undefined) {
          const salted = /^[0-9a-f]{64}$/.test(each.salt); // another could have bytes of the content
          if (!salted || (await payloadHash(each.salt, each.body)) !== each.payload_hash)
            return wrong(`the content of #${each.version} is not what its hash says`);
          contents += 1;
        } else if (each.payload_hash) unseen += 1;
      }
      say(`${numberOf(events, "event")} …`);
      more = !event && page.more;
    }
  } catch (error) {
    return wrong(`it could not be checked: ${error.message}`);
  }
  if (!events) return wrong("there are no events");
  const contentsTold = `${numberOf(contents, "content")}${unseen ? ` (${unseen} more are erased, or need the right audit)` : ""}`;
  return {
    ok: true,
    text: `${numberOf(events, "event")}, ${contentsTold}; the last hash, computed here: ${previous}`,
  };
};
