// MQTT.js, which does what the system tests tell it; `client.py` says how. NODE_MODULES is where it is installed.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const mqtt = createRequire(process.env.NODE_MODULES + "/")("mqtt");
const say = (what, more = {}) => process.stdout.write(JSON.stringify({ is: what, ...more }) + "\n");
let client;

// Ours and theirs.
const NAMES = { content_type: "contentType", response_topic: "responseTopic", expiry_secs: "messageExpiryInterval" };

function theirs(wanted) {
  const properties = {};
  for (const [ours, name] of Object.entries(NAMES)) if (ours in wanted) properties[name] = wanted[ours];
  if ("correlation_data" in wanted) properties.correlationData = Buffer.from(wanted.correlation_data);
  if ("user" in wanted) {
    properties.userProperties = Object.create(null);
    for (const [name, value] of wanted.user) {
      const before = properties.userProperties[name];
      properties.userProperties[name] = before === undefined ? value : [before, value].flat();
    }
  }
  return properties;
}

function ours(properties = {}) {
  const found = {};
  for (const [name, theirs] of Object.entries(NAMES)) if (theirs in properties) found[name] = properties[theirs];
  if ("correlationData" in properties) found.correlation_data = properties.correlationData.toString();
  if ("userProperties" in properties)
    found.user = Object.entries(properties.userProperties).flatMap(([name, values]) =>
      [values].flat().map((value) => [name, value]),
    );
  return found;
}

const does = {
  connect(place) {
    const scheme = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" }[place.transport];
    const options = {
      clientId: place.id,
      clean: place.clean,
      protocolVersion: place.version,
      reconnectPeriod: 0,
      connectTimeout: 180_000,
      will: place.will ?? undefined,
    };
    if (place.version === 5) options.properties = { sessionExpiryInterval: place.expiry_secs };
    if (scheme === "mqtts" || scheme === "wss") {
      options.ca = readFileSync(place.ca);
      options.cert = readFileSync(place.certificate);
      options.key = readFileSync(place.key);
    }
    const path = scheme.startsWith("ws") ? place.path : "";
    client = mqtt.connect(`${scheme}://${place.host}:${place.port}${path}`, options);
    client.on("error", (error) => say("refused", { why: String(error) }));
    client.on("message", (topic, payload, packet) =>
      say("message", {
        topic,
        payload: payload.toString(),
        qos: packet.qos,
        retain: packet.retain,
        properties: ours(packet.properties),
      }),
    );
    return new Promise((done) =>
      client.once("connect", (connack) => done(say("connected", { present: connack.sessionPresent }))),
    );
  },
  async subscribe(wish) {
    const granted = await client.subscribeAsync(wish.filter, { qos: wish.qos });
    say("subscribed", { code: granted[0].qos });
  },
  async publish(wish) {
    const options = { qos: wish.qos, retain: wish.retain };
    if (Object.keys(wish.properties).length > 0) options.properties = theirs(wish.properties);
    await client.publishAsync(wish.topic, wish.payload, options);
    say("published");
  },
  async disconnect() {
    await client.endAsync();
    say("disconnected");
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const wish = JSON.parse(line);
  await does[wish.do](wish);
}
